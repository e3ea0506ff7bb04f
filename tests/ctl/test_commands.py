"""Every command that asks the coordinator, as a command line: data, formats, exit status, one-line
errors.
"""

import json
import socket

import pytest

from daemon.messages import Chunk, Reply
from tests.ctl.fake import (
    SEQUENCE,
    failure,
    generation,
    other_version,
    reply,
    silent,
)
from tests.ctl.samples import (
    AB,
    CONVERSATION,
    EVENTS,
    KV_ALL,
    MODELS,
    NODE,
    PIPELINE,
    PS,
    STATUS,
)


def events(fake, peer, request):
    for event in EVENTS:
        fake.say(peer, Chunk(request.request, event))
    fake.say(peer, Reply(request.request, {}))


SCRIPTS = {
    "status": reply(STATUS),
    "nodes": reply({"nodes": [NODE]}),
    "pipeline": reply(PIPELINE),
    "kv": reply(KV_ALL),
    "kv_pin": reply({"sequence": AB, "pinned": True}),
    "kv_evict": reply({"evicted": [AB]}),
    "kv_save": reply({"sequence": AB, "tokens": 1024, "bytes": 8_384_512, "seconds": 0.25}),
    "kv_load": reply({"sequence": AB, "tokens": 1024, "bytes": 8_384_512, "seconds": 0.25}),
    "conversation_list": reply({"conversations": [CONVERSATION]}),
    "conversation_forget": reply({"forgotten": "notes"}),
    "ps": reply({"sequences": PS}),
    "model_list": reply({"models": MODELS}),
    "model_unload": reply({"model": "embedded"}),
    "events": events,
    "logs": reply({"node": "mini", "lines": ["one", "two"]}),
}
READS = [
    (("status",), "READY", "cluster"),
    (("nodes",), "studio", "nodes"),
    (("pipeline",), "COMPUTE P50", "stages"),
    (("kv",), "abababababab", "sequences"),
    (("kv", "list"), "notes", "entries"),
    (("kv", "list"), "qwen", "conversations"),
    (("kv", "show", "notes"), "kept", "entry"),
    (("kv", "show", "ab"), "studio", "sequences"),
    (("kv", "pin", "AB"), "pinned abababababab\n", "pinned"),
    (("kv", "unpin", "notes"), "unpinned abababababab\n", "sequence"),
    (("kv", "evict", "ab"), "evicted abababababab\n", "evicted"),
    (("kv", "evict", "--all"), "evicted abababababab\n", "evicted"),
    (("kv", "save", "notes"), "saved abababababab, 1 024 tokens, 8.4 MB in 0.25 s", "bytes"),
    (("kv", "load", "ab"), "loaded abababababab, 1 024 tokens, 8.4 MB in 0.25 s", "seconds"),
    (("ps",), "decode", "sequences"),
    (("model", "list"), "llama", "models"),
    (("model", "unload"), "unloaded embedded", "model"),
    (("cancel", "ab"), "cancelled ab", "cancelled"),
    (("events",), "joined mini: with 32 GB", "events"),
    (("logs", "mini"), "one\ntwo", "lines"),
]


@pytest.mark.parametrize(("words", "text", "key"), READS, ids=lambda value: str(value))
def test_a_command_prints_text_and_json(ctl, coordinator, words, text, key):
    fake = coordinator(**SCRIPTS)
    done = ctl("--endpoint", fake.endpoint, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert text in done.stdout
    done = ctl(*words, "-o", "json", SHARDBUS_ENDPOINT=fake.endpoint)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["schema"] == 1
    assert key in document


def test_jsonl_is_one_record_per_row(ctl, coordinator):
    fake = coordinator(**SCRIPTS)
    done = ctl("kv", "-o", "jsonl", "--endpoint", fake.endpoint)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["node"] for row in rows] == ["studio", "mini"]
    assert all(row["schema"] == 1 for row in rows)


def test_arguments_reach_the_coordinator(ctl, coordinator):
    fake = coordinator(**SCRIPTS)
    ctl("logs", "mini", "--child", "stage", "-n", "7", "--endpoint", fake.endpoint)
    assert fake.wait_for("logs").arguments == {"node": "mini", "child": "stage", "lines": 7}
    ctl("events", "-n", "5", "--endpoint", fake.endpoint)
    assert fake.wait_for("events").arguments == {"follow": False, "limit": 5}


def test_loading_a_model(ctl, coordinator):
    def load(fake, peer, request):
        chunk = {"stage": 0, "node": "a", "bytes_loaded": 5, "bytes_total": 10}
        fake.say(peer, Chunk(request.request, chunk))
        answer = {"model": "embedded", "epoch": 2, "layers": [5, 3]}
        fake.say(peer, Reply(request.request, answer))

    fake = coordinator(model_load=load, **SCRIPTS)
    done = ctl("model", "load", "embedded", "--split", "5,3", "--endpoint", fake.endpoint)
    assert (done.returncode, done.stdout) == (0, "loaded embedded, layers 5,3\n")
    assert done.stderr == ""  # no bars where nobody looks
    assert fake.wait_for("model.load").arguments == {"model": "embedded", "split": [5, 3]}
    done = ctl("model", "load", "embedded", "-o", "jsonl", "--endpoint", fake.endpoint)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["type"] == "progress"
    assert lines[1]["layers"] == [5, 3]


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        (("model", "load", "embedded"), "model.load"),
        (("model", "unload"), "model.unload"),
        (("cancel", "all"), "cancel"),
        (("kv", "pin", "notes"), "kv.pin"),
        (("kv", "unpin", "ab"), "kv.pin"),
        (("kv", "evict", "ab"), "kv.evict"),
        (("kv", "evict", "notes", "--forget"), "conversation.forget"),
        (("kv", "save", "ab"), "kv.save"),
    ],
)
def test_a_dry_run_changes_nothing(ctl, coordinator, words, verb):
    fake = coordinator(**SCRIPTS)
    done = ctl(*words, "--dry-run", "--endpoint", fake.endpoint)
    assert done.returncode == 0
    assert "would" in done.stdout
    assert verb not in {request.verb for request in fake.requests}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("model", "load", "nope", "--dry-run"), 2, "unknown model 'nope'"),
        (("model", "load", "embedded", "--split", "5,5", "--dry-run"), 2, "its sum is 10"),
        (("model", "load", "embedded", "--split", "5,x"), 2, "wrong split '5,x'"),
        (("cancel", "zz", "--dry-run"), 1, "no request has that id"),
        (("kv", "pin", "nobody"), 1, "no conversation has that name"),
        (("kv", "show", "ee"), 1, "no KV of 'ee'"),
        (("kv", "pin", "ee", "--dry-run"), 1, "no KV of 'ee'"),
        (("kv", "evict", "ab", "--all"), 2, "give --all"),
        (("kv", "evict", "--dry-run"), 2, "give --all"),
        (("kv", "evict", "ab", "--forget"), 2, "only a conversation can be forgotten"),
        (("kv", "evict", "--all", "--forget"), 2, "only a conversation can be forgotten"),
    ],
)
def test_bad_arguments(ctl, coordinator, words, code, said):
    fake = coordinator(**SCRIPTS)
    done = ctl(*words, "--endpoint", fake.endpoint)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--frobnicate",), 2, "no such option: --frobnicate"),
        (("status", "--frobnicate"), 2, "see `shardctl status --help`"),
        (("frobnicate",), 2, "frobnicate"),
        (("status", "-o", "xml"), 2, "xml"),
        (("status", "--timeout", "soon"), 2, "--timeout is 'soon'"),
        (("status", "--endpoint", "here"), 2, "an endpoint is tcp://HOST:PORT"),
        (("status", "--endpoint", "tcp://127.0.0.1:99999"), 2, "tcp://HOST:PORT"),
        (("generate", "--top-p", "2", "x"), 2, "--top-p is 2.0, outside"),
        (("generate", "--temp", "hot", "x"), 2, "--temp"),
        (("generate", "--logit-bias", "5", "x"), 2, "ID=BIAS"),
        (("generate", "--kv-bits", "3", "x"), 2, "--kv-bits is 3, must be 8, 4 or 0"),
        (("generate", "--raw", "-s", "be kind", "x"), 2, "--system with --raw"),
        (("generate", "--stop", "", "x"), 2, "--stop is empty"),
        (("generate", "-f", "/nonexistent/file"), 1, "No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_usage_errors_are_one_line(ctl, words, code, said):
    done = ctl(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    done = ctl("--json", *words)
    error = json.loads(done.stderr)
    assert (error["schema"], error["error"]["code"]) == (1, code)


def test_logprobs_need_json(ctl):
    done = ctl("generate", "--logprobs", "2", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--logprobs without JSON" in done.stderr


def test_nothing_listens(ctl):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        done = ctl("status", SHARDBUS_ENDPOINT=f"tcp://127.0.0.1:{port}")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        f"error: no coordinator at tcp://127.0.0.1:{port}: connection refused; start one with"
        " `shardctl up` or pass --endpoint (this one came from SHARDBUS_ENDPOINT)\n"
    )


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        (other_version, 5, "protocol 9"),
        (silent, 6, "does not answer"),
        (failure(3, "no stage"), 3, "error: no stage: because; do this"),
    ],
)
def test_what_a_coordinator_may_do(ctl, coordinator, script, code, said):
    fake = coordinator(status=script)
    done = ctl("status", "--endpoint", fake.endpoint, "--timeout", "500ms")
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_status_check(ctl, coordinator):
    degraded = {**STATUS, "state": "degraded", "reason": "mini is down"}
    fake = coordinator(status=reply(degraded))
    assert ctl("status", "--endpoint", fake.endpoint).returncode == 0
    done = ctl("status", "--check", "--endpoint", fake.endpoint)
    assert done.returncode == 3
    assert "DEGRADED" in done.stdout
    assert "mini is down" in done.stderr
    assert ctl("status", "--check", "-q", "--endpoint", fake.endpoint).stdout == ""
    fake = coordinator(status=reply(STATUS))
    assert ctl("status", "--check", "--endpoint", fake.endpoint).returncode == 0


def test_options_may_stand_before_or_after(ctl, coordinator):
    fake = coordinator(**SCRIPTS)
    before = ctl("--endpoint", fake.endpoint, "--json", "nodes")
    after = ctl("nodes", "--json", "--endpoint", fake.endpoint)
    assert before.stdout == after.stdout
    assert json.loads(after.stdout)["nodes"]
    wins = ctl("--endpoint", "tcp://127.0.0.1:1", "nodes", "--endpoint", fake.endpoint)
    assert wins.returncode == 0


def test_color_follows_the_conventions(ctl, coordinator):
    fake = coordinator(**SCRIPTS)
    assert "\x1b" not in ctl("nodes", "--endpoint", fake.endpoint).stdout
    forced = ctl("nodes", "--endpoint", fake.endpoint, FORCE_COLOR="1")
    assert "\x1b[32m" in forced.stdout
    for words, variables in (((), {"NO_COLOR": "1"}), (("--no-color",), {})):
        done = ctl("nodes", "--endpoint", fake.endpoint, *words, FORCE_COLOR="1", **variables)
        assert "\x1b" not in done.stdout


def test_generate_sends_what_was_asked(ctl, coordinator):
    fake = coordinator(generate=generation("def", " f"))
    done = ctl(
        *("generate", "hello", "-s", "be kind", "--max-tokens", "9", "--temp", "0.5"),
        *("--top-k", "4", "--seed", "11", "--stop", "a", "--stop", "b", "--logit-bias", "42=-5"),
        *("--ignore-eos", "--kv-bits", "8", "--endpoint", fake.endpoint),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "def f\n", "")
    arguments = fake.wait_for("generate").arguments
    sampling = arguments.pop("sampling")
    assert len(bytes.fromhex(arguments.pop("sequence"))) == 16
    assert arguments == {
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "hello"},
        ],
        "raw": None,
        "max_tokens": 9,
        "stop": ["a", "b"],
        "stop_at_eos": False,
        "kv_bits": 8,
        "conversation": None,
    }
    assert (sampling["temperature"], sampling["top_k"], sampling["seed"]) == (0.5, 4, 11)
    assert sampling["logit_bias"] == [[42, -5.0]]


def test_a_turn_of_a_conversation(ctl, coordinator):
    fake = coordinator(generate=generation("a"))
    for option in ("--raw", "--chat"):
        ctl("generate", "-c", "notes", option, "x", "--endpoint", fake.endpoint)
    for number, raw in ((1, True), (2, False)):
        arguments = fake.wait_for("generate", number).arguments
        assert (arguments["conversation"], arguments["raw"]) == ("notes", raw)


def test_generate_formats(ctl, coordinator):
    fake = coordinator(generate=generation("é", "\nb", last="c"))
    at = ("--endpoint", fake.endpoint)
    assert ctl("gen", "x", *at).stdout == "é\nbc\n"
    assert ctl("gen", "x", "--no-stream", *at).stdout == "é\nbc\n"
    document = json.loads(ctl("gen", "x", "-o", "json", *at).stdout)
    assert document["text"] == "é\nbc"
    assert document["tokens"] == [10, 11]
    assert (document["schema"], document["finish_reason"], document["seed"]) == (1, "stop", 7)
    lines = [json.loads(line) for line in ctl("gen", "x", "--jsonl", *at).stdout.splitlines()]
    assert [line["type"] for line in lines] == ["start", "delta", "delta", "end"]
    assert lines[0]["sequence"] == SEQUENCE
    assert [lines[index]["cached_tokens"] for index in (0, -1)] == [1, 1]
    done = ctl("gen", "x", "--stats", *at)
    assert "output 2 tokens" in done.stderr
    assert "(1 cached" in done.stderr
    assert "output" not in done.stdout


def test_a_refused_generation_is_an_error(ctl, coordinator):
    fake = coordinator(generate=failure(1, "the prompt has 90000 tokens", "the context has 4096"))
    done = ctl("generate", "x", "--json", "--endpoint", fake.endpoint)
    assert (done.returncode, done.stdout) == (1, "")
    assert json.loads(done.stderr)["error"]["why"] == "the context has 4096"


def test_waiting_is_said_once_with_verbose(ctl, coordinator):
    def wait(fake, peer, request):
        for _ in range(3):
            fake.say(peer, Chunk(request.request, {"waiting": "mini is down"}))
        generation("a")(fake, peer, request)

    fake = coordinator(generate=wait)
    done = ctl("generate", "x", "-v", "--endpoint", fake.endpoint)
    assert (done.stdout, done.stderr) == ("a\n", "waiting: mini is down\n")
    assert ctl("generate", "x", "--endpoint", fake.endpoint).stderr == ""


@pytest.mark.parametrize(
    ("stdin", "words", "prompt"),
    [
        (b"from stdin\n", (), "from stdin\n"),
        (b"text", ("summarise",), "text\nsummarise"),
        (b"text", ("-",), "text"),
        (b"text", ("-f", "-"), "text"),
        (b"", ("only this",), "only this"),
        (None, ("only this",), "only this"),
        ("größe 日本".encode(), (), "größe 日本"),
        (b"x" * 1_000_000, (), "x" * 1_000_000),
    ],
    ids=["stdin", "both", "dash", "file dash", "empty and argument", "no stdin", "utf-8", "1 MB"],
)
def test_where_the_prompt_comes_from(ctl, coordinator, stdin, words, prompt):
    fake = coordinator(generate=generation("a"))
    done = ctl("generate", *words, "--raw", "--endpoint", fake.endpoint, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    assert fake.wait_for("generate").arguments["prompt"] == prompt


def test_the_prompt_from_a_file(ctl, coordinator, tmp_path):
    file = tmp_path / "prompt"
    file.write_bytes("für".encode())
    fake = coordinator(generate=generation("a"))
    ctl("generate", "-f", str(file), "and this", "--endpoint", fake.endpoint, stdin=b"unread")
    assert fake.wait_for("generate").arguments["prompt"] == "für\nand this"


@pytest.mark.parametrize(
    ("stdin", "code", "said"),
    [
        (b"", 2, "error: the prompt is empty: standard input ended without any text;"),
        (b"abc\xff", 1, "error: standard input is not UTF-8: byte 0xff at offset 3;"),
        ("ü".encode()[:1], 1, "byte 0xc3 at offset 0"),
    ],
)
def test_bad_standard_input(ctl, coordinator, stdin, code, said):
    fake = coordinator(generate=generation("a"))
    done = ctl("generate", "--endpoint", fake.endpoint, stdin=stdin)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert fake.requests == []


def test_random_seeds_differ_and_greedy_needs_none(ctl, coordinator):
    fake = coordinator(generate=generation("a"))
    for _ in range(2):
        ctl("generate", "x", "--temp", "1", "--endpoint", fake.endpoint)
    ctl("generate", "x", "--endpoint", fake.endpoint)
    seeds = [fake.wait_for("generate", n).arguments["sampling"]["seed"] for n in (1, 2, 3)]
    assert seeds[0] != seeds[1]
    assert seeds[2] == 0
