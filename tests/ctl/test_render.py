"""Rendering is pure: dicts in, text out."""

import json

import pytest

from ctl.errors import CommandError, one_line
from ctl.render import records, units
from ctl.render.kv import kv_text, list_text, show_text
from ctl.render.lists import event_text, log_text, models_text, ps_text, statistics_text
from ctl.render.pipeline import pipeline_text
from ctl.render.status import nodes_text, status_text
from ctl.render.table import Column, Style, columns_of, shorten, table
from tests.ctl.fake import END
from tests.ctl.samples import (
    AB,
    CONVERSATION,
    ENTRY,
    EVENTS,
    KV,
    KV_ALL,
    MINI,
    MODELS,
    NODE,
    PIPELINE,
    PS,
    SAVED,
    SPARE,
    STATUS,
)

PLAIN = Style()

STATUS_GOLDEN = """\
cluster home · epoch 7 · model Qwen3-32B-4bit (64 layers) · READY · 2 active / 0 queued · 31.4 tok/s
NODE    ROLE               STATE  LAYERS  WEIGHTS      KV           MEM FREE  NEXT HOP                 LAT P50  AGE
studio  coordinator+stage  ready  0-35    10.1 GB  1.2 GB  61.0 GB / 96.0 GB  mini zmq                    41us  3d2h
mini    stage              ready  36-63    8.4 GB  900 MB  22.0 GB / 32.0 GB  coordinator zmq (plain)    310us  3d2h
! studio → mini: not by RDMA: mini: the rdma process has ended (ended: 2 gone, 1 stalled)"""  # noqa: E501

STATUS_80 = """\
cluster home · epoch 7 · model Qwen3-32B-4bit (64 layers) · READY · 2 active / 0 queued · 31.4 tok/s
NODE    STATE  LAYERS  WEIGHTS      KV  NEXT HOP                 LAT P50
studio  ready  0-35    10.1 GB  1.2 GB  mini zmq                    41us
mini    ready  36-63    8.4 GB  900 MB  coordinator zmq (plain)    310us
! studio → mini: not by RDMA: mini: the rdma process has ended (ended: 2 gone, 1 stalled)"""

PIPELINE_GOLDEN = """\
epoch 7 · 2 microbatches in flight of 3
STAGE  NODE    LAYERS  QUEUE P50    P99  COMPUTE P50     P99  ENCODE P50   P99  BUSY  BUBBLE  FRAMES
    0  studio  0-35         20us  900us       12.1ms  30.2ms         4us  10us   87%     13%    1234
    1  mini    36-63           -      -        9.8ms  20.0ms         3us  10us     -       -    1233

HOP                 PATH         LINK P50    P99  CODEC           SPEED  STATE  WHY
studio → mini       zmq              41us  200us  fp8 (auto)  11.4 MB/s  up     not by RDMA: mini: the rdma process has ended (ended: 2 gone, 1 stalled)
mini → coordinator  zmq (plain)     310us  1.0ms                         up

guesses from n-grams: 75% right of 1 234 sent · 2 beside a token, 3 ahead of it · 31 frames ahead, 4 cancelled
refilled after restarts of stages: 3 sequences, 4 096 tokens · 1 given up"""  # noqa: E501

KV_OLD_GOLDEN = """\
SEQUENCE      STAGE  NODE    TOKENS    SIZE  TYPE  STATE  SHARED WITH  CONVERSATION
abababababab      0  studio   1 024  4.2 MB  kv    -      -            -
abababababab      1  mini     1 023  4.2 MB  kv    -      -            -
1 sequence, 8.4 MB in all"""

KV_GOLDEN = """\
SEQUENCE      STAGE  NODE    TOKENS    SIZE  TYPE  STATE  SHARED WITH   CONVERSATION
abababababab      0  studio   1 024  4.2 MB  kv    kept   cdcdcdcdcdcd  notes
abababababab      1  mini     1 023  4.2 MB  kv    kept   cdcdcdcdcdcd  notes
1 sequence, 8.4 MB in all

STAGE  NODE    BUDGET    USED    KEPT    DISK
    0  studio  9.0 GB  4.2 MB  4.0 MB  1.0 MB
hit rate 75% (3 of 4) · 2 048 tokens used again · evictions 5 · preemptions 0"""

KV_LIST_GOLDEN = """\
SEQUENCE      STATE  TOKENS  TYPE   PINNED  HITS  IDLE   AGE    DISK  SHARED WITH   CONVERSATION
abababababab  kept    1 023  exact  yes       12  1m1s  1h6m       -  cdcdcdcdcdcd  notes
cdcdcdcdcdcd  saved   1 023  8-bit  -          -  1m1s     -  2.0 MB  -             -

CONVERSATION  TURNS  TOKENS  IDLE  RUNNING  SAVED  RAW  MODEL  SEQUENCE
notes             3   1 024  1m1s  no       yes    no   qwen   abababababab"""

KV_SHOW_GOLDEN = """\
CONVERSATION  TURNS  TOKENS  IDLE  RUNNING  SAVED  RAW  MODEL  SEQUENCE
notes             3   1 024  1m1s  no       yes    no   qwen   abababababab

SEQUENCE      STATE  TOKENS  TYPE   PINNED  HITS  IDLE   AGE  DISK  SHARED WITH   CONVERSATION
abababababab  kept    1 023  exact  yes       12  1m1s  1h6m     -  cdcdcdcdcdcd  notes

SEQUENCE      STAGE  NODE    TOKENS    SIZE  TYPE  STATE  SHARED WITH   CONVERSATION
abababababab      0  studio   1 024  4.2 MB  kv    kept   cdcdcdcdcdcd  notes
abababababab      1  mini     1 023  4.2 MB  kv    kept   cdcdcdcdcdcd  notes
1 sequence, 8.4 MB in all"""

PS_GOLDEN = """\
SEQUENCE      STATE   PROMPT  CACHED  OUTPUT  TOK/S  AGE  REISSUES
abababababab  decode   1 000     512      24   15.2   3s         0"""

MODELS_GOLDEN = """\
NAME      LOADED  ARCHITECTURE  LAYERS     SIZE  QUANTIZATION  FOLDER            ERROR
embedded  yes     llama              8  12.6 MB  -             /models/embedded"""


@pytest.mark.parametrize(
    ("text", "golden"),
    [
        (status_text(STATUS, PLAIN), STATUS_GOLDEN),
        (status_text(STATUS, Style(width=80)), STATUS_80),
        (pipeline_text(PIPELINE, PLAIN), PIPELINE_GOLDEN),
        (kv_text({"sequences": KV}, PLAIN), KV_OLD_GOLDEN),
        (kv_text(KV_ALL, PLAIN), KV_GOLDEN),
        (list_text([ENTRY, SAVED], [CONVERSATION], PLAIN), KV_LIST_GOLDEN),
        (
            show_text({"conversation": CONVERSATION, "entry": ENTRY, "sequences": KV}, PLAIN),
            KV_SHOW_GOLDEN,
        ),
        (ps_text(PS, PLAIN), PS_GOLDEN),
        (models_text(MODELS, PLAIN), MODELS_GOLDEN),
    ],
    ids=[
        *("status", "status at 80", "pipeline", "kv without entries", "kv", "kv list", "kv show"),
        *("ps", "models"),
    ],
)
def test_golden(text, golden):
    assert text == golden


def test_each_draft_has_a_line_in_status():
    drafts = [
        {"node": "mini", "model": "small", "state": "ready", "reason": None}
        | {"tokens_per_second": 412.3},
        {"node": "air", "model": "s", "state": "loading", "reason": None}
        | {"tokens_per_second": None},
        {"node": "old", "model": "s", "state": "unused", "reason": "s has another tokenizer than b"}
        | {"tokens_per_second": 80.0},
    ]
    text = status_text({**STATUS, "hops": [], "drafts": drafts}, PLAIN)
    assert text.splitlines()[-3:] == [
        "draft small on mini: ready, 412 tok/s",
        "draft s on air: loading",
        "draft s on old: unused, 80.0 tok/s, s has another tokenizer than b",
    ]
    narrow = status_text({**STATUS, "hops": [], "drafts": drafts}, Style(width=30))
    assert all(len(line) <= 30 for line in narrow.splitlines()[-3:])


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("wide", [False, True])
def test_tables_fit(width, wide):
    style = Style(width=width, wide=wide)
    for text in (
        nodes_text([NODE, MINI, SPARE], style),
        ps_text(PS, style),
        kv_text(KV_ALL, style),
        list_text([ENTRY, SAVED], [CONVERSATION], style),
    ):
        sums = ("in all", "hit rate")
        table_lines = [t for t in text.splitlines() if not any(word in t for word in sums)]
        assert all(columns_of(line) <= max(width, 38) for line in table_lines)


def test_wide_shows_more():
    assert "MLX" not in nodes_text([NODE], PLAIN)
    wide = nodes_text([NODE], Style(wide=True))
    assert "0.32.4" in wide
    assert "studio.local" in wide


def test_spares_come_last_and_loading_shows_how_far():
    loading = {**MINI, "state": "loading", "bytes_loaded": 25, "bytes_total": 100}
    lines = nodes_text([SPARE, loading, NODE], PLAIN).splitlines()
    assert [line.split()[0] for line in lines] == ["NODE", "studio", "mini", "air"]
    assert "loading 25%" in lines[2]


def test_trouble_is_said():
    hop = {**STATUS["hops"][0], "why": "port down"}
    node = {**MINI, "state": "down", "reason": "killed by signal 9"}
    text = status_text(
        {
            **STATUS,
            "state": "degraded",
            "reason": "mini is down",
            "nodes": [NODE, node],
            "hops": [hop],
            "warnings": ["not compiled"],
        },
        PLAIN,
    )
    assert "DEGRADED" in text
    for line in (
        "! mini is down",
        "! mini: killed by signal 9",
        "! studio → mini: port down",
        "! not compiled",
    ):
        assert line in text.splitlines()


def test_nothing_there():
    empty = {**STATUS, "state": "idle", "model": None, "nodes": [], "hops": []}
    assert "no model" in status_text(empty, PLAIN)
    assert "no pipeline" in pipeline_text({**PIPELINE, "stages": []}, PLAIN)
    never = {**PIPELINE, "speculation": {"source": "n-grams", "why": "it cannot", "sent": 0}}
    never["refills"] = {"begun": 0, "given up": 0, "tokens": 0}
    assert pipeline_text(never, PLAIN).endswith("\n\nnothing is guessed: it cannot")
    assert kv_text({"sequences": []}, PLAIN) == "no KV caches are held"
    assert list_text([], [], PLAIN) == "no KV caches are held\nno conversations"
    assert show_text({"sequences": []}, PLAIN) == "no KV caches are held"
    assert ps_text([], PLAIN) == "no requests"
    assert models_text([], PLAIN) == "no models are configured"
    assert nodes_text([], PLAIN) == "no nodes have joined"


def test_missing_and_null_keys_are_dashes():
    assert "-" in nodes_text([{"name": "bare"}], Style(wide=True))
    status_text({"state": "idle"}, PLAIN)
    pipeline_text({"stages": [{"stage": 0}], "hops": [{"from": "a"}]}, PLAIN)
    bare = {"sequence": AB}
    for text in (
        kv_text({"sequences": [bare], "stages": [{"stage": 0}], "counters": {"hits": 1}}, PLAIN),
        list_text([bare], [{"name": "notes"}], Style(wide=True)),
    ):
        assert text.count(" - ") >= 3


def test_color_only_when_wanted():
    assert "\x1b" not in status_text(STATUS, PLAIN)
    assert "\x1b[32mready\x1b[0m" in status_text(STATUS, Style(color=True))


def test_nothing_from_outside_steers_the_terminal():
    evil = "a\x1b[2Jb\rc"
    for text in (
        nodes_text([{**NODE, "name": evil}], PLAIN),
        event_text({**EVENTS[0], "text": evil}, PLAIN),
        log_text([evil]),
        one_line(evil),
    ):
        assert "\x1b" not in text
        assert "\r" not in text
    assert log_text(["a\tb"]) == "a\tb"


def test_wide_characters_take_two_columns():
    assert columns_of("日本") == 4
    assert columns_of("e\u0301") == 1
    assert shorten("日本語", 5) == "日本…"
    columns = (Column("A", lambda row: row["a"]), Column("B", lambda row: row["b"]))
    text = table(columns, [{"a": "日本", "b": "x"}, {"a": "ab", "b": "y"}], PLAIN)
    assert text.splitlines()[1:] == ["日本  x", "ab    y"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (999_999, "1.0 MB"),
        (10_100_000_000, "10.1 GB"),
        (999_600_000_000, "1.0 TB"),
    ],
)
def test_sizes(value, text):
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0us"),
        (41e-6, "41us"),
        (0.9999e-3, "1.0ms"),
        (0.25, "250ms"),
        (2, "2.00s"),
    ],
)
def test_latencies(value, text):
    assert units.latency(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.4, "0s"), (59, "59s"), (60, "1m"), (250, "4m10s"), (266_400, "3d2h")],
)
def test_ages(value, text):
    assert units.age(value) == text


def test_statistics():
    assert statistics_text({**END, "seed": 7}) == (
        "prompt 3 tokens (1 cached, 12.0 tok/s) · output 2 tokens (2.0 tok/s)"
        " · first token 0.25 s · total 1.50 s · stop · seed 7"
    )
    statistics_text({})


def test_json_says_its_schema():
    assert json.loads(records.document({"a": "é"})) == {"schema": 1, "a": "é"}
    assert records.lines([{"a": 1}, {"a": 2}]).count("\n") == 1


def test_errors_are_one_line():
    error = CommandError(1, "it\nfailed", "of a\n  reason", "do\tthis")
    assert error.line() == "error: it failed: of a reason; do this"
    assert CommandError(1, "it failed").line() == "error: it failed"
    assert error.record()["error"]["code"] == 1
