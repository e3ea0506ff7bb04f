"""up, down, demo: a cluster on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ctl import output
from ctl.errors import CommandError, ExitCode
from ctl.options import command
from ctl.render.pipeline import pipeline_text
from ctl.render.status import status_text
from ctl.session import Session

Nodes = Annotated[int | None, typer.Option("--nodes", "-n", help="How many. [default: 2]")]
Split = Annotated[
    str | None,
    typer.Option("--split", metavar="5,2,1", help="Layers per node. [default: balanced]"),
]
Model = Annotated[str, typer.Option("--model", "-m", help="A name or a folder.")]
State = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="Where it keeps files. [env: SHARDBUS_STATE]"),
]
DEMO_PROMPT = "def read_config(path):"
DEMO_NODES = 3


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    command(app, "demo")(demo)
    command(app, "up")(up)
    command(app, "down")(down)


def up(
    session: Session,
    nodes: Nodes = None,
    split: Split = None,
    model: Model = "embedded",
    state: State = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="The coordinator's; else free.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Until the model is loaded, or not.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be started.")] = False,
) -> None:
    """Start a cluster of several nodes on this machine."""
    from ctl.local import make_plan, start

    plan = make_plan(state, nodes, split, model, port)
    if dry_run:
        data = {**plan.record(), "dry_run": True}
        session.show(data, lambda style: "would start " + _described(plan.record()))
        return
    cluster = start(session, plan, wait=wait)
    data = {**cluster.record(), "dry_run": False}
    session.show(data, lambda style: "started " + _described(data))
    if state is not None and not session.output.machine:
        session.note(f"to reach it: --endpoint {cluster.endpoint}, or SHARDBUS_STATE={state}")


def down(
    session: Session,
    state: State = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be ended.")] = False,
) -> None:
    """End the cluster that `up` started."""
    from ctl.local import find_cluster, stop

    found = find_cluster(state)
    if found is None:
        session.show(
            {"ended": [], "dry_run": dry_run}, lambda style: "no local cluster was started here"
        )
        return
    names = [node.name for node in found.running()]
    if not dry_run:
        names = stop(session, found)
    data = {"state": str(found.state), "ended": names, "dry_run": dry_run}
    verb = "would end" if dry_run else "ended"
    session.show(data, lambda style: f"{verb} {', '.join(names) or 'nothing: it had ended'}")


def demo(
    session: Session,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1)] = 96,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be started.")] = False,
) -> None:
    """Start three nodes, generate with the embedded model, show what happened, end them.

    The prompt is what is piped in, else a built-in one.
    """
    from ctl.generation import generate
    from ctl.local import make_plan, start, stop
    from ctl.prompt import read_if_waiting
    from daemon.sampling import SamplingParams

    with tempfile.TemporaryDirectory(prefix="shardbus-demo-") as folder:
        plan = make_plan(Path(folder), DEMO_NODES, None, "embedded", None)
        if dry_run:
            session.show(
                {**plan.record(), "dry_run": True},
                lambda style: "would start, use and end " + _described(plan.record()),
            )
            return
        prompt = read_if_waiting()
        session.note(f"starting {_described(plan.record())}")
        cluster = start(session, plan, wait=True)
        try:
            from ctl.endpoint import Endpoint

            with session.client(Endpoint(cluster.endpoint, "the demonstration")) as client:
                text = prompt or DEMO_PROMPT
                if not prompt:
                    session.note(f"prompt: {text!r}")
                arguments = {
                    "prompt": text,
                    "raw": True,
                    "sampling": SamplingParams(temperature=0.5, seed=6).to_wire(),
                    "max_tokens": max_tokens,
                    "stop": [],
                    "stop_at_eos": True,
                }
                generate(session, client, arguments, stats=not session.quiet)
                style = session.style(2)
                if not session.quiet:
                    output.say(status_text(client.request("status"), style))
                    output.say(pipeline_text(client.request("pipeline"), style))
        finally:
            stop(session, cluster)


def _described(record: dict[str, object]) -> str:
    nodes = record["nodes"]
    if not isinstance(nodes, list):
        raise CommandError(ExitCode.FAILED, "a cluster without nodes")
    split = record["split"]
    layers = f", layers {','.join(map(str, split))}" if isinstance(split, list) else ""
    word = "node" if len(nodes) == 1 else "nodes"
    return f"{len(nodes)} {word} with {record['model']}{layers}, at {record['endpoint']}"
