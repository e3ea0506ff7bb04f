"""The control plane's messages: what shardd, its stages, the coordinator and shardctl say to each
other.

One msgpack map per message, `{"type": name, field: value, ...}`, over DEALER to the coordinator's
ROUTER. Every message is a frozen dataclass of this package; `decode` checks type, fields and value
types before anything is used, and raises MessageError for what is not one of them. `term` fences
coordinators: who receives one with a lower term than the highest seen ignores it.
"""

from daemon.messages.catalogue import Message
from daemon.messages.codec import MAX_MESSAGE_BYTES, MessageError, decode, encode
from daemon.messages.drafting import DraftBeat, DraftHello, DraftLags, Propose, Proposed
from daemon.messages.hello import (
    PROTOCOL,
    Drained,
    Goodbye,
    Identify,
    NodeHello,
    Refused,
    StageHello,
    Welcome,
)
from daemon.messages.moving import Give, Giving, Prepare, Prepared, Settle, Switch
from daemon.messages.node import (
    ChildExited,
    KillStage,
    LogsQuery,
    LogsReport,
    NodeHeartbeat,
    PortsQuery,
    PortsReport,
)
from daemon.messages.rdma import (
    PathLost,
    PathTaken,
    RdmaBeat,
    RdmaJoined,
    RdmaOffer,
    RdmaProbe,
    RdmaProbed,
    RdmaStart,
    RdmaStop,
    TakePath,
)
from daemon.messages.request import Chunk, Failure, Reply, Request
from daemon.messages.saved_kv import (
    DiskQuery,
    DropKv,
    KvRestored,
    KvSaved,
    KvStored,
    LoadKv,
    SaveKv,
)
from daemon.messages.stage import (
    Assign,
    Assigned,
    Heartbeat,
    HeartbeatAck,
    KvQuery,
    KvReport,
    LinkFailed,
    Load,
    Loaded,
    LoadFailed,
    Profile,
    Profiled,
    Revoke,
    Unload,
)

__all__ = [
    "MAX_MESSAGE_BYTES",
    "PROTOCOL",
    "Assign",
    "Assigned",
    "ChildExited",
    "Chunk",
    "DiskQuery",
    "DraftBeat",
    "DraftHello",
    "DraftLags",
    "Drained",
    "DropKv",
    "Failure",
    "Give",
    "Giving",
    "Goodbye",
    "Heartbeat",
    "HeartbeatAck",
    "Identify",
    "KillStage",
    "KvQuery",
    "KvReport",
    "KvRestored",
    "KvSaved",
    "KvStored",
    "LinkFailed",
    "Load",
    "LoadFailed",
    "LoadKv",
    "Loaded",
    "LogsQuery",
    "LogsReport",
    "Message",
    "MessageError",
    "NodeHeartbeat",
    "NodeHello",
    "PathLost",
    "PathTaken",
    "PortsQuery",
    "PortsReport",
    "Prepare",
    "Prepared",
    "Profile",
    "Profiled",
    "Propose",
    "Proposed",
    "RdmaBeat",
    "RdmaJoined",
    "RdmaOffer",
    "RdmaProbe",
    "RdmaProbed",
    "RdmaStart",
    "RdmaStop",
    "Refused",
    "Reply",
    "Request",
    "Revoke",
    "SaveKv",
    "Settle",
    "StageHello",
    "Switch",
    "TakePath",
    "Unload",
    "Welcome",
    "decode",
    "encode",
]
