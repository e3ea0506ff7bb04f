"""What `shardctl` is shown: the coordinator's state as plain data in the shapes of
docs/protocol.md.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from daemon.cluster.machine import Cluster
from daemon.cluster.member import Member
from daemon.coordinator.models import ServedModel
from daemon.hop_path import HopPath
from daemon.messages import KvReport
from daemon.scheduler.hops import Hops
from daemon.scheduler.request import Request
from daemon.scheduler.sequence import Sequence
from daemon.scheduler.trace import PipelineStats


def node_view(cluster: Cluster, member: Member, now: float) -> dict[str, Any]:
    node, stage, beat, loaded = member.node, member.stage, member.beat, member.loaded
    slot = cluster.slot_of(member.name)
    layers = cluster.slots[slot].layers if slot is not None else None
    local = member.name == cluster.rules.local_node
    role = "coordinator" if local and slot is None else "stage" if slot is not None else "spare"
    return {
        "name": member.name,
        "role": "coordinator+stage" if local and slot is not None else role,
        "state": member.state,
        "reason": member.trouble or None,
        "pid": node.pid if node else None,
        "stage_pid": stage.pid if stage else None,
        "host": node.host if node else None,
        "version": node.version if node else None,
        "mlx": stage.mlx if stage else None,
        "mlx_lm": stage.mlx_lm if stage else None,
        "python": node.python if node else None,
        "system": node.system if node else None,
        "device": stage.device if stage else None,
        "blas": stage.blas if stage else None,
        "compiled": loaded.compiled if loaded else None,
        "batching": loaded.batching if loaded else None,
        "address": loaded.data_address if loaded else None,
        "stage": slot,
        "layers": str(layers) if layers else None,
        "weights_bytes": loaded.weights_bytes if loaded else 0,
        "tensors_opened": loaded.tensors_opened if loaded else 0,
        "kv_bytes": beat.kv_bytes if beat else 0,
        "sequences": beat.sequences if beat else 0,
        "memory_bytes": node.memory_bytes if node else None,
        "memory_free_bytes": member.memory_free_bytes or None,
        "resident_bytes": beat.resident_bytes if beat else None,
        "bytes_loaded": beat.bytes_loaded if beat else 0,
        "bytes_total": beat.bytes_total if beat else 0,
        "frames": beat.frames_finished if beat else 0,
        "dropped": dict(beat.dropped) if beat else {},
        "restarts": member.restarts,
        "last_seen": now - member.beat_at if member.beat_at else None,
        "uptime": now - member.joined_at if member.joined_at else None,
    }


def nodes_view(cluster: Cluster, now: float) -> list[dict[str, Any]]:
    """In pipeline order, then the others by name."""

    def place(member: Member) -> tuple[int, str]:
        slot = cluster.slot_of(member.name)
        return (len(cluster.slots) if slot is None else slot, member.name)

    return [node_view(cluster, m, now) for m in sorted(cluster.members.values(), key=place)]


def model_view(model: ServedModel | None) -> dict[str, Any] | None:
    if model is None:
        return None
    info = model.info
    return {
        "name": model.spec.name,
        "folder": model.spec.folder,
        "architecture": info.architecture,
        "layers": info.layers,
        "digest": model.spec.digest,
        "dtype": info.dtype,
        "quantization": info.quantization,
        "context_length": info.context_length,
    }


def loading_view(cluster: Cluster) -> list[dict[str, Any]]:
    """One chunk per stage of a `model.load` that goes on."""
    beats = [(i, s.node, cluster.members.get(s.node)) for i, s in enumerate(cluster.slots)]
    return [
        {
            "stage": i,
            "node": name,
            "bytes_loaded": m.beat.bytes_loaded if m and m.beat else 0,
            "bytes_total": m.beat.bytes_total if m and m.beat else 0,
        }
        for i, name, m in beats
    ]


def warnings(nodes: list[dict[str, Any]]) -> list[str]:
    """What an operator should look at, a line each."""
    found = [f"{n['name']}: {n['reason']}" for n in nodes if n["reason"]]
    for node in nodes:
        if node["blas"] == "reference":
            found.append(
                f"{node['name']}: multiplies with the reference BLAS, 10-50 times slower for "
                "batches; install libopenblas or a C compiler, then restart shardd"
            )
        if node["compiled"] is False:
            found.append(f"{node['name']}: no C++ compiler, the head runs uncompiled")
    return found


def stages_view(cluster: Cluster, stats: PipelineStats, now: float) -> list[dict[str, Any]]:
    """Where the time goes, stage by stage."""
    measured = stats.as_dict(now)["stages"]
    return [
        {
            "stage": i,
            "node": slot.node,
            "layers": str(slot.layers),
            "queue": times["queue"],
            "compute": times["compute"],
            "encode": times["encode"],
            "busy": times["busy"],
            "bubble": times["bubble"],
            "frames": _frames(cluster, slot.node),
        }
        for i, (slot, times) in enumerate(zip(cluster.slots, measured, strict=False))
    ]


def _frames(cluster: Cluster, node: str) -> int:
    member = cluster.members.get(node)
    return member.beat.frames_finished if member and member.beat else 0


def hops_view(
    cluster: Cluster, stats: PipelineStats, hops: Hops, now: float
) -> list[dict[str, Any]]:
    """Each link of the ring, from the coordinator and back to it. Only those between stages carry
    hidden states, and have a codec: the one that the last request was given.
    """
    measured = stats.as_dict(now)["hops"]
    between = [None, *hops.as_dict(), None]
    places = ["coordinator", *(slot.node for slot in cluster.slots), "coordinator"]
    return [
        {
            "from": start,
            "to": end,
            **_path_view(cluster, start),
            "by_path": measured[i]["paths"] if i < len(measured) else {},
            "p50": measured[i]["link"]["p50"] if i < len(measured) else None,
            "p99": measured[i]["link"]["p99"] if i < len(measured) else None,
            "state": _link_state(cluster, start),
            "why": None if cluster.up else cluster.why_down,
            "wire": between[i] if len(between) == len(places) - 1 else None,
        }
        for i, (start, end) in enumerate(pairwise(places))
        if cluster.slots
    ]


def _path_view(cluster: Cluster, sender: str) -> dict[str, Any]:
    """Only from stage to stage there is another path than ZeroMQ."""
    hop = cluster.paths.of(sender)
    by_rdma = hop is not None and hop.path is HopPath.RDMA
    return {
        "path": "rdma" if by_rdma else "zmq (plain)",
        "not_rdma": hop.why_not or None if hop else None,
        "fallbacks": dict(hop.fallbacks) if hop else {},
    }


def _link_state(cluster: Cluster, sender: str) -> str:
    """As its sender's last heartbeat says; the coordinator's own is as good as the pipeline."""
    member = cluster.members.get(sender)
    if member is None or not cluster.up:
        return "up" if cluster.up else "down"
    return member.beat.link if member.beat and member.beat.link else "up"


def sequence_view(sequence: Sequence, now: float) -> dict[str, Any]:
    """One row of `ps`."""
    decoding = now - sequence.first_token if sequence.first_token is not None else 0.0
    here = sequence.generated - sequence.given
    return {
        "sequence": sequence.id.hex(),
        "state": sequence.status.value,
        "prompt_tokens": sequence.prompt_length,
        "cached_tokens": sequence.cached,
        "output_tokens": sequence.generated,
        "attempt": sequence.attempt,
        "reissues": sequence.reissues,
        "age": now - sequence.submitted,
        **sequence.request.fidelity.to_wire(),
        "tokens_per_second": here / decoding if decoding > 0 else None,
    }


def loading_kv_view(request: Request, age: float) -> dict[str, Any]:
    """The same for one that is not scheduled yet: the stages read what is saved of it."""
    return {
        "sequence": request.sequence.hex(),
        "state": "loading-kv",
        "prompt_tokens": len(request.prompt),
        "cached_tokens": 0,
        "output_tokens": 0,
        "attempt": 0,
        "reissues": 0,
        "age": age,
        **request.fidelity.to_wire(),
        "tokens_per_second": None,
    }


def kv_view(cluster: Cluster, reports: list[KvReport]) -> list[dict[str, Any]]:
    """One row per sequence and stage."""
    rows = [
        entry | {"stage": cluster.slot_of(report.node), "node": report.node}
        for report in reports
        for entry in report.sequences
    ]
    return sorted(rows, key=lambda row: (str(row.get("sequence")), row["stage"] or 0))
