"""generate: text in, text out."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctl.errors import CommandError, ExitCode
from ctl.options import command
from ctl.output import Format
from ctl.session import Session

if TYPE_CHECKING:
    from ctl.generation import Resumed


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    command(app, "generate", aliases=("gen",))(generate)


def generate(
    session: Session,
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT|-]", help="The prompt; - is standard input.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="Read the prompt from here.")
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", "-s", metavar="TEXT", help="The system message.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="At most so many; else the context.")
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", "--temp", help="0 takes the likeliest token.")
    ] = 0.0,
    top_p: Annotated[float, typer.Option("--top-p")] = 1.0,
    top_k: Annotated[int, typer.Option("--top-k", help="0: all.")] = 0,
    min_p: Annotated[float, typer.Option("--min-p")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option("--repetition-penalty")] = 1.0,
    presence_penalty: Annotated[float, typer.Option("--presence-penalty")] = 0.0,
    frequency_penalty: Annotated[float, typer.Option("--frequency-penalty")] = 0.0,
    penalty_window: Annotated[
        int, typer.Option("--penalty-window", help="How many tokens the penalties look back.")
    ] = 20,
    logit_bias: Annotated[
        list[str] | None,
        typer.Option("--logit-bias", metavar="ID=BIAS", help="May be given several times."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Same seed, same text; random when left out.")
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="TEXT", help="End before this; several times."),
    ] = None,
    logprobs: Annotated[
        int | None,
        typer.Option("--logprobs", metavar="N", help="Report the N likeliest; JSON output only."),
    ] = None,
    kv_bits: Annotated[
        int | None,
        typer.Option(
            "--kv-bits",
            metavar="N",
            help="Hold the KV in 8 or 4 bits; 0: exact. [default: as the conversation, 0]",
        ),
    ] = None,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Go on after the end-of-text token.")
    ] = False,
    conversation: Annotated[
        str | None,
        typer.Option("--conversation", "-c", metavar="NAME", help="Go on with it, or begin it."),
    ] = None,
    raw: Annotated[
        bool | None,
        typer.Option(
            "--raw/--chat",
            help="The prompt as it is, or the chat template. [default: as the conversation, chat]",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="ID", help="Go on printing a request that was begun."),
    ] = None,
    received: Annotated[
        int, typer.Option("--received", metavar="N", min=0, help="Tokens of it to leave out.")
    ] = 0,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="The same as -o jsonl.")] = False,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Print all at the end.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Counts and times, on stderr.")] = False,
) -> None:
    """Generate text. The prompt is PROMPT, standard input, or both (standard input first)."""
    from ctl.prompt import assemble

    if jsonl:
        session = replace(session, output=Format.JSONL)
    if raw and system is not None:
        why = "a raw prompt has no chat template to put it in"
        raise CommandError(ExitCode.USAGE, "--system with --raw", why, "leave one of them out")
    if logprobs is not None and not session.output.machine:
        why = "plain text has no place for them"
        raise CommandError(ExitCode.USAGE, "--logprobs without JSON", why, "add --jsonl or --json")
    if resume is not None:
        if prompt is not None or file is not None:
            why = "it has its prompt already"
            raise CommandError(ExitCode.USAGE, "--resume with a prompt", why, "leave one out")
        from ctl.generation import Resumed

        _run(session, Resumed(resume, received), no_stream, stats)
        return
    options = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "penalty_window": penalty_window,
        "logit_bias": dict(map(_bias, logit_bias or ())),
        "seed": seed if seed is not None else secrets.randbits(32) if temperature > 0 else 0,
        "logprobs": logprobs,
    }
    arguments: dict[str, Any] = {
        "raw": raw,
        "sampling": _sampling(options),
        "max_tokens": max_tokens,
        "stop": _stops(stop or []),
        "stop_at_eos": not ignore_eos,
        "kv_bits": None if kv_bits is None else _kv_bits(kv_bits),
        "conversation": conversation,
    }
    text = assemble(prompt, file, session.note)
    if raw or system is None:
        arguments["prompt"] = text
    else:
        roles = (("system", system), ("user", text))
        arguments["messages"] = [{"role": role, "content": content} for role, content in roles]
    _run(session, arguments, no_stream, stats)


def _run(session: Session, wanted: dict[str, Any] | Resumed, no_stream: bool, stats: bool) -> None:
    from ctl.generation import generate as run

    with session.client() as client:
        run(session, client, wanted, stream=not no_stream, stats=stats)


def _bias(text: str) -> tuple[int, float]:
    token, equals, bias = text.partition("=")
    try:
        if equals:
            return int(token), float(bias)
    except ValueError:
        pass
    raise CommandError(
        ExitCode.USAGE,
        f"--logit-bias is {text!r}",
        "it must be ID=BIAS, a token's number and what is added to its logit",
        "write for example 42=-5",
    )


def _stops(stops: list[str]) -> list[str]:
    if "" in stops:
        raise CommandError(
            ExitCode.USAGE, "--stop is empty", "every text contains that", "leave it out"
        )
    return stops


def _kv_bits(bits: int) -> int:
    """Checked by the coordinator's own rule before anything is sent."""
    from daemon.kv_bits import check_kv_bits

    try:
        return check_kv_bits(bits)
    except ValueError as error:
        rest = str(error).removeprefix("kv_bits ")
        raise CommandError(
            ExitCode.USAGE, f"--kv-bits {rest}", todo="see `shardctl generate --help`"
        ) from error


def _sampling(options: dict[str, Any]) -> dict[str, Any]:
    """Checked by the coordinator's own rules before anything is sent."""
    from daemon.sampling import SamplingParams

    try:
        return SamplingParams(**options).to_wire()
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        option = "--" + name.replace("_", "-")
        raise CommandError(
            ExitCode.USAGE, f"{option} {rest}", todo="see `shardctl generate --help`"
        ) from error
