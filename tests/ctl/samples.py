"""Answers as a coordinator gives them."""

from typing import Any

NODE: dict[str, Any] = {
    "name": "studio",
    "role": "coordinator+stage",
    "state": "ready",
    "reason": None,
    "pid": 100,
    "stage_pid": 101,
    "host": "studio.local",
    "version": "0.1.0",
    "mlx": "0.32.4",
    "mlx_lm": "0.32.2",
    "python": "3.11.7",
    "system": "Darwin",
    "device": "gpu",
    "blas": "accelerate",
    "compiled": True,
    "batching": "spans",
    "address": "tcp://127.0.0.1:5601",
    "stage": 0,
    "layers": "0-35",
    "weights_bytes": 10_100_000_000,
    "kv_bytes": 1_200_000_000,
    "sequences": 2,
    "memory_bytes": 96_000_000_000,
    "memory_free_bytes": 61_000_000_000,
    "resident_bytes": 11_000_000_000,
    "bytes_loaded": 10_100_000_000,
    "bytes_total": 10_100_000_000,
    "frames": 1234,
    "dropped": 0,
    "restarts": 0,
    "last_seen": 0.1,
    "uptime": 266_400.0,
}
MINI = {
    **NODE,
    "name": "mini",
    "role": "stage",
    "stage": 1,
    "layers": "36-63",
    "weights_bytes": 8_400_000_000,
    "kv_bytes": 900_000_000,
    "memory_bytes": 32_000_000_000,
    "memory_free_bytes": 22_000_000_000,
    "pid": 200,
    "stage_pid": 201,
}
SPARE = {**NODE, "name": "air", "role": "spare", "state": "idle", "stage": None, "layers": None}
HOPS: list[dict[str, Any]] = [
    {
        "from": "studio",
        "to": "mini",
        "path": "zmq",
        "not_rdma": "mini: the rdma process has ended",
        "fallbacks": {"gone": 2, "stalled": 1},
        "by_path": {"zmq": {"count": 9, "p50": 0.000041, "p99": 0.0002}},
        "p50": 0.000041,
        "p99": 0.0002,
        "state": "up",
        "why": None,
        "wire": {
            "layer": 36,
            "wish": "auto",
            "codec": "fp8",
            "possible": ["fp8", "int8"],
            "bytes_per_second": 11_400_000.0,
            "latency": 0.0002,
        },
    },
    {
        "from": "mini",
        "to": "coordinator",
        "path": "zmq (plain)",
        "p50": 0.00031,
        "p99": 0.001,
        "state": "up",
        "why": None,
    },
]
STATUS: dict[str, Any] = {
    "cluster": "home",
    "version": "0.1.0",
    "protocol": 1,
    "term": 3,
    "epoch": 7,
    "uptime": 266_400.0,
    "state": "ready",
    "reason": None,
    "model": {"name": "Qwen3-32B-4bit", "layers": 64, "context_length": 32768},
    "active": 2,
    "queued": 0,
    "in_flight": 2,
    "tokens_per_second": 31.4,
    "reissues": 0,
    "nodes": [MINI, NODE],
    "hops": HOPS,
    "warnings": [],
}
PIPELINE: dict[str, Any] = {
    "epoch": 7,
    "in_flight": 2,
    "window": 3,
    "stages": [
        {
            "stage": 0,
            "node": "studio",
            "layers": "0-35",
            "queue": {"p50": 0.00002, "p99": 0.0009},
            "compute": {"p50": 0.0121, "p99": 0.0302},
            "encode": {"p50": 0.000004, "p99": 0.00001},
            "busy": 0.87,
            "bubble": 0.13,
            "frames": 1234,
        },
        {
            "stage": 1,
            "node": "mini",
            "layers": "36-63",
            "queue": {"p50": None, "p99": None},
            "compute": {"p50": 0.0098, "p99": 0.02},
            "encode": {"p50": 0.000003, "p99": 0.00001},
            "busy": None,
            "bubble": None,
            "frames": 1233,
        },
    ],
    "hops": HOPS,
    "refills": {"begun": 3, "given up": 1, "tokens": 4096},
    "speculation": {
        "source": "n-grams",
        "sent": 1234,
        "right": 600,
        "wrong": 200,
        "frames_ahead": 31,
        "cancelled": 4,
        "late": 0,
        "acceptance": 0.75,
        "tempo": {"first": 2, "after": 3, "depth": 2},
    },
}
AB, CD = "ab" * 16, "cd" * 16
KV = [
    {"sequence": AB, "stage": 0, "node": "studio", "tokens": 1024, "bytes": 4_194_304},
    {"sequence": AB, "stage": 1, "node": "mini", "tokens": 1023, "bytes": 4_190_208},
]
KV = [{**row, "kind": "kv", "kv_bits": 0} for row in KV]
ENTRY: dict[str, Any] = {
    "sequence": AB,
    "state": "kept",
    "tokens": 1023,
    "kv_bits": 0,
    "pinned": True,
    "age": 4000.0,
    "idle": 61.0,
    "hits": 12,
    "shared_with": [CD],
    "names": ["notes"],
    "disk_bytes": None,
}
SAVED: dict[str, Any] = {
    "entry": CD,
    "state": "saved",
    "tokens": 1023,
    "bytes": 2_000_000,
    "kv_bits": 8,
    "nodes": ["mini", "studio"],
    "complete": True,
    "idle": 61.0,
}
KV_STAGE = {"stage": 0, "node": "studio", "budget_bytes": 9e9, "used_bytes": 4_194_304}
KV_STAGE |= {"kept_bytes": 4_000_000, "disk_bytes": 1_000_000}
COUNTERS = {"hits": 3, "misses": 1, "hit_tokens": 2048, "evictions": 5, "preemptions": 0}
KV_ALL: dict[str, Any] = {
    "sequences": KV,
    "silent": [],
    "entries": [ENTRY, SAVED],
    "counters": COUNTERS,
    "stages": [KV_STAGE],
}
CONVERSATION: dict[str, Any] = {
    "name": "notes",
    "model": "qwen",
    "raw": False,
    "kv_bits": 0,
    "turns": 3,
    "tokens": 1024,
    "sequence": AB,
    "idle": 61.0,
    "running": False,
    "saved": True,
}
PS = [
    {
        "sequence": "ab" * 16,
        "state": "decode",
        "prompt_tokens": 1000,
        "cached_tokens": 512,
        "output_tokens": 24,
        "attempt": 1,
        "reissues": 0,
        "age": 3.5,
        "tokens_per_second": 15.25,
    }
]
MODELS = [
    {
        "name": "embedded",
        "folder": "/models/embedded",
        "architecture": "llama",
        "layers": 8,
        "bytes": 12_600_000,
        "quantization": None,
        "loaded": True,
        "error": None,
    }
]
EVENTS = [
    {"time": 1_700_000_000.0, "kind": "joined", "node": "mini", "text": "with 32 GB"},
    {"time": 1_700_000_001.0, "kind": "loaded", "node": None, "text": "embedded over 2 nodes"},
]
PLAN: dict[str, Any] = {
    "model": "Qwen3-32B-4bit",
    "context": 32768,
    "objective": "balanced",
    "stages": [
        {
            "stage": 0,
            "node": "studio",
            "layers": "0-47",
            "weights_bytes": 14_000_000_000,
            "kv_bytes": 6_400_000_000,
            "memory_bytes": 96_000_000_000,
            "seconds": 0.0151,
            "measured_seconds": 0.0149,
        },
        {
            "stage": 1,
            "node": "mini",
            "layers": "48-63",
            "weights_bytes": 5_600_000_000,
            "kv_bytes": 2_100_000_000,
            "memory_bytes": 22_000_000_000,
            "seconds": 0.0132,
            "measured_seconds": None,
        },
    ],
    "hops_assumed": 3,
    "round_seconds": 0.0291,
    "slowest_seconds": 0.0151,
    "tokens_per_second": 34.4,
    "tokens_per_second_full": 66.2,
    "left_out": [{"node": "air", "why": "with it a token would take 35.1 ms instead of 29.1"}],
}
CHANGE: dict[str, Any] = {
    **PLAN,
    "nodes": [
        {"node": "studio", "now": "0-35", "new": "0-47", "moves": 12, "load_bytes": 3_600_000_000},
        {"node": "mini", "now": "36-63", "new": "48-63", "moves": -12, "load_bytes": 0},
    ],
    "load_bytes": 3_600_000_000,
    "kv_bytes": 300_000_000,
    "load_seconds": 4.2,
    "copy_seconds": None,
    "changed": True,
    "present": {"tokens_per_second": 30.1, "tokens_per_second_full": 40.2},
    "gap_seconds": 0.0291,
    "replay_seconds": 41.0,
    "left_out": [],
    "dry_run": True,
    "begun": False,
}
MOVED: dict[str, Any] = {
    **CHANGE,
    "dry_run": False,
    "begun": True,
    "epoch": 8,
    "seconds": {"preparing": 4.1, "copying": 0.61, "switching": 0.031},
    "loaded_bytes": 3_600_000_000,
    "copied_bytes": 310_000_000,
    "replayed": False,
    "why": None,
    "tokens": 143,
    "longest_gap": {"sequence": "ab" * 16, "seconds": 0.062, "median_seconds": 0.0301},
}
MOVING: dict[str, Any] = {
    "phase": "copying",
    "seconds": 3.2,
    "bytes_loaded": 3_600_000_000,
    "bytes_total": 3_600_000_000,
    "sent_bytes": 12_000_000,
    "left_bytes": 1_200_000,
}
