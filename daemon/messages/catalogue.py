"""All messages that there are."""

from __future__ import annotations

from daemon.messages.drafting import DraftBeat, DraftHello, DraftLags, Propose, Proposed
from daemon.messages.hello import (
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

Message = (
    NodeHello
    | StageHello
    | Welcome
    | Refused
    | Identify
    | Goodbye
    | Drained
    | Load
    | Assign
    | Unload
    | Revoke
    | KvQuery
    | SaveKv
    | LoadKv
    | DropKv
    | DiskQuery
    | Loaded
    | LoadFailed
    | Profile
    | Profiled
    | Assigned
    | Prepare
    | Prepared
    | Give
    | Giving
    | Switch
    | Settle
    | Heartbeat
    | HeartbeatAck
    | LinkFailed
    | RdmaOffer
    | RdmaStart
    | RdmaStop
    | RdmaJoined
    | RdmaProbe
    | RdmaProbed
    | RdmaBeat
    | TakePath
    | PathTaken
    | PathLost
    | KvReport
    | KvSaved
    | KvRestored
    | KvStored
    | DraftHello
    | DraftBeat
    | Propose
    | Proposed
    | DraftLags
    | KillStage
    | NodeHeartbeat
    | ChildExited
    | LogsQuery
    | LogsReport
    | PortsQuery
    | PortsReport
    | Request
    | Chunk
    | Reply
    | Failure
)
