"""The control plane's messages: what shardd, its stages, the coordinator and shardctl say to each
other.

One msgpack map per message, `{"type": name, field: value, ...}`, over DEALER to the coordinator's
ROUTER. Every message is a frozen dataclass below; `decode` checks type, fields and value types
before anything is used, and raises MessageError for what is not one of them. `term` fences
coordinators: who receives one with a lower term than the highest seen ignores it.
"""

from daemon.messages.catalogue import (
    PROTOCOL,
    Assign,
    Assigned,
    ChildExited,
    Chunk,
    Drained,
    Failure,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Identify,
    KillStage,
    KvQuery,
    KvReport,
    LinkFailed,
    Load,
    Loaded,
    LoadFailed,
    LogsQuery,
    LogsReport,
    Message,
    NodeHeartbeat,
    NodeHello,
    Refused,
    Reply,
    Request,
    Revoke,
    StageHello,
    Unload,
    Welcome,
)
from daemon.messages.codec import MAX_MESSAGE_BYTES, MessageError, decode, encode

__all__ = [
    "MAX_MESSAGE_BYTES",
    "PROTOCOL",
    "Assign",
    "Assigned",
    "ChildExited",
    "Chunk",
    "Drained",
    "Failure",
    "Goodbye",
    "Heartbeat",
    "HeartbeatAck",
    "Identify",
    "KillStage",
    "KvQuery",
    "KvReport",
    "LinkFailed",
    "Load",
    "LoadFailed",
    "Loaded",
    "LogsQuery",
    "LogsReport",
    "Message",
    "MessageError",
    "NodeHeartbeat",
    "NodeHello",
    "Refused",
    "Reply",
    "Request",
    "Revoke",
    "StageHello",
    "Unload",
    "Welcome",
    "decode",
    "encode",
]
