"""What `rdma test --report` writes: enough to tell from afar what a cluster has and how it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daemon.thunderbolt.facts import Machine
from daemon.thunderbolt.failures import recognise
from daemon.thunderbolt.redact import Redactor
from daemon.thunderbolt.run import Output

SCHEMA = 1
ABOUT = (
    "Shardbus: RDMA over Thunderbolt on these machines. Addresses, identifiers, serial numbers and "
    "names of computers are replaced by hashes whose salt is not kept; names of nodes are those of "
    "the configuration."
)


def outputs(said: Mapping[str, Output], salt: str) -> dict[str, str]:
    """What each tool said, for the report: it leaves its machine redacted. A tool that said nothing
    has "".
    """
    redactor = Redactor(salt)
    found = {}
    for tool, output in said.items():
        say = redactor.profile if tool == "system_profiler" else redactor.text
        found[tool] = say(output.text) if output.text else ""
    return found


def document(
    versions: Mapping[str, Any],
    machines: Mapping[str, Machine],
    said: Mapping[str, Mapping[str, str]],
    silent: list[str],
    view: Mapping[str, Any],
    salt: str,
) -> dict[str, Any]:
    """`versions` of the programs by node, `said` as `outputs` gave it by node, `view` what `rdma
    status` shows. What probes found is added by `with_probes`.
    """
    redactor = Redactor(salt)
    return {
        "report": SCHEMA,
        "about": ABOUT,
        "versions": redactor.value(dict(versions)),
        "machines": {node: redactor.value(m.to_wire()) for node, m in machines.items()},
        "tools": {node: dict(outputs) for node, outputs in said.items()},
        "silent": silent,
        "status": redactor.value(dict(view)),
        "probes": [],
    }


def with_probes(
    document: Mapping[str, Any], probes: Sequence[Mapping[str, Any]], salt: str
) -> dict[str, Any]:
    """A document with what probes found, each a map with `why` ("" or missing when it went well);
    what is known of that stands beside it as `advice`. Redacted as well, by any salt.
    """
    redactor = Redactor(salt)
    found = [{**probe, "advice": _advice(str(probe.get("why") or ""))} for probe in probes]
    return {**document, "probes": redactor.value(found)}


def _advice(why: str) -> dict[str, str] | None:
    advice = recognise(why)
    if advice is None:
        return None
    return {"row": advice.row, "cause": advice.cause, "fix": advice.fix}
