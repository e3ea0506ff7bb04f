"""The kv commands: what they ask the coordinator for, and what they would."""

import json

import pytest

from tests.ctl.fake import failure, reply
from tests.ctl.samples import CD, CONVERSATION, ENTRY, KV_ALL
from tests.ctl.test_commands import SCRIPTS


def test_entries_and_conversations_are_told_apart_in_jsonl(ctl, coordinator):
    fake = coordinator(**SCRIPTS)
    done = ctl("kv", "-o", "jsonl", "list", "--endpoint", fake.endpoint)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["type"] for row in rows] == ["entry", "entry", "conversation"]


@pytest.mark.parametrize(
    ("words", "verb", "arguments"),
    [
        (("pin", "notes"), "kv.pin", {"conversation": "notes", "pinned": True}),
        (("unpin", "Ab"), "kv.pin", {"sequence": "ab", "pinned": False}),
        (("evict", "notes"), "kv.evict", {"conversation": "notes"}),
        (("evict", "--all"), "kv.evict", {"sequence": "all"}),
        (("save", "ab"), "kv.save", {"sequence": "ab"}),
        (("load", "cd"), "kv.load", {"entry": "cd", "dry_run": False}),
        (("load", "notes"), "kv.load", {"conversation": "notes", "dry_run": False}),
        (("evict", "notes", "--forget"), "kv.evict", {"conversation": "notes"}),
        (("evict", "notes", "--forget"), "conversation.forget", {"conversation": "notes"}),
    ],
)
def test_a_conversation_is_named_and_a_sequence_by_its_id(ctl, coordinator, words, verb, arguments):
    fake = coordinator(**SCRIPTS)
    assert ctl("kv", *words, "--endpoint", fake.endpoint).returncode == 0
    assert fake.wait_for(verb).arguments == arguments


def test_what_a_load_would_read_the_coordinator_says(ctl, coordinator):
    """After a restart nothing is held, and what is saved has other ids than sequences."""
    would = {"sequence": None, "entry": CD, "tokens": 1023, "bytes": 2_000_000, "seconds": None}
    nothing = reply({**KV_ALL, "entries": []})
    fake = coordinator(**{**SCRIPTS, "kv": nothing, "kv_load": reply(would)})
    for word, argument in (("notes", "conversation"), ("cd", "entry")):
        done = ctl("kv", "load", word, "--dry-run", "--endpoint", fake.endpoint)
        assert (done.returncode, done.stdout) == (0, "would load cdcdcdcdcdcd, 1 023 tokens\n")
        asked = fake.requests[-1]
        assert (asked.verb, asked.arguments) == ("kv.load", {argument: word, "dry_run": True})


def test_a_name_goes_before_an_id(ctl, coordinator):
    named = {**CONVERSATION, "name": "cd"}
    scripts = {**SCRIPTS, "conversation_list": reply({"conversations": [named]})}
    fake = coordinator(**scripts)
    ctl("kv", "pin", "cd", "--endpoint", fake.endpoint)
    assert fake.wait_for("kv.pin").arguments["conversation"] == "cd"
    done = ctl("kv", "pin", "cd", "--dry-run", "--endpoint", fake.endpoint)
    assert done.stdout == "would pin abababababab\n", "that of its last turn"


def test_a_conversation_without_kv_can_be_forgotten(ctl, coordinator):
    nothing = reply({**KV_ALL, "entries": []})
    fake = coordinator(**{**SCRIPTS, "kv": nothing, "kv_evict": failure(1, "no KV")})
    done = ctl("kv", "evict", "notes", "--forget", "--endpoint", fake.endpoint)
    assert (done.returncode, done.stdout) == (0, "forgot notes\n")


def test_a_dry_run_says_what_would_go(ctl, coordinator):
    second = {**ENTRY, "sequence": CD, "pinned": False}
    running = {**second, "sequence": "ef" * 16, "state": "running"}
    known = reply({**KV_ALL, "entries": [ENTRY, second, running]})
    fake = coordinator(**{**SCRIPTS, "kv": known})
    done = ctl("kv", "evict", "--all", "--dry-run", "--endpoint", fake.endpoint)
    assert done.stdout == "would evict cdcdcdcdcdcd\n"
    done = ctl("kv", "evict", "notes", "--forget", "--dry-run", "--endpoint", fake.endpoint)
    assert done.stdout == "would evict abababababab\nwould forget notes\n"
    assert {request.verb for request in fake.requests} == {"kv", "conversation.list"}
    alike = reply({**KV_ALL, "entries": [ENTRY, {**ENTRY, "sequence": "abcd" * 8}]})
    fake = coordinator(**{**SCRIPTS, "kv": alike})
    done = ctl("kv", "evict", "ab", "--dry-run", "--endpoint", fake.endpoint)
    assert (done.returncode, done.stdout) == (2, "")
    assert "2 sequences start like that" in done.stderr
