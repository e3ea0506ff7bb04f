"""A frame as bytes: part 0 describes it, parts 1..n are the tensors' raw buffers.

Part 0, little-endian, without padding between the blocks:

    offset size
    0      4    magic "SBUS"
    4      2    version
    6      1    kind             1 WORK, 2 RESULT
    7      1    reserved, 0
    8      8    term
    16     8    epoch
    24     8    microbatch
    32     4    number of spans
    36     4    number of tokens
    40     4    bytes of meta
    44     4    number of commands
    48     2    number of departures
    50     2    number of traces
    52     2    number of tensors = number of parts after this one
    54     1    first stage of a refill
    55     1    the one after its last; both 0: it is none
    56          spans            40 each: sequence 16, attempt 4, position 4, length 4,
                                 prefix hash 8, outputs 4
                tokens           4 each: int32
                commands         44 each: kind 1 (1 release, 2 fork, 3 barrier, 4 turn), reserved 3,
                                 sequence 16 (of a fork: its target), attempt 4 (of a turn: its
                                 number), length 4 (of a turn: 1 for the last frame, 0 for the
                                 first), source 16; 0 where nothing is said
                departures       28 each: sequence 16, attempt 4, held 4, stage 2, reason 1,
                                 reserved 1
                traces           36 each: stage 4, received 8, started 8, computed 8, sent 8
                                 (float64 seconds)
                tensors          20 each: dtype 1, rank 1, reserved 2, four dimensions of 4
                                 (unused ones 0)
                meta             msgpack, see transports.meta
    end-4  4    crc32 of all that stands before it

Magic and version stand at the same place in every version. The checksum covers part 0 only: what a
wrong header can do is unbounded, a wrong element of a hidden state is TCP's to prevent, or CURVE's.
`decode` believes nothing: each count is checked against the limits and all of them together against
the length of the part before a record is read. It raises FrameError and nothing else, whatever the
bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from itertools import chain

from transports import limits as size
from transports.errors import EncodeError, FrameError, VersionError
from transports.frame import (
    SEQUENCE_ID_BYTES,
    Barrier,
    Command,
    Departure,
    Fork,
    Frame,
    FrameKind,
    Refill,
    Release,
    Span,
    Turn,
)
from transports.limits import MAX_RANK, FrameLimits
from transports.meta import pack_meta, unpack_meta
from transports.records import (
    COMMAND,
    DEPARTURE,
    SPAN,
    TENSOR,
    TRACE,
    Buffer,
    pack_command,
    payload,
    read_command,
    read_departure,
    read_tensor,
    read_trace,
)

MAGIC = b"SBUS"
VERSION = 1

_PREFIX = struct.Struct("<4sH")
_HEADER = struct.Struct("<4sHBBQQQIIIIHHHBB")
_CRC = struct.Struct("<I")

_KINDS = {k.value: k for k in FrameKind}


def encode(frame: Frame, limits: FrameLimits | None = None) -> list[Buffer]:
    """The parts of a message; those of tensors are views of the caller's memory, which must not
    change until sent.

    EncodeError for a frame that the other side would refuse (of the sizes only with `limits`).
    """
    spans, tokens, refill = frame.spans, frame.tokens, frame.refill
    if problem := _inconsistent(frame.kind, spans, len(tokens), refill):
        raise EncodeError(problem)
    if frame.commands and (problem := _crowded(frame)):
        raise EncodeError(problem)
    meta = pack_meta(frame.constants, frame.logprobs)
    payloads = [payload(tensor) for tensor in frame.tensors]
    if limits is not None:
        _check_limits(frame, len(meta), limits)
    try:
        chunks = [
            _HEADER.pack(
                MAGIC, VERSION, frame.kind, 0, frame.term, frame.epoch, frame.microbatch,
                len(spans), len(tokens), len(meta), len(frame.commands),
                len(frame.departures), len(frame.traces), len(payloads),
                *((refill.first, refill.end) if refill else (0, 0)),
            )
        ]  # fmt: skip
        chunks += [
            SPAN.pack(s.sequence, s.attempt, s.position, s.length, s.prefix_hash, s.outputs)
            for s in spans
        ]
        chunks.append(struct.pack(f"<{len(tokens)}i", *tokens))
        chunks += [pack_command(c) for c in frame.commands]
        chunks += [
            DEPARTURE.pack(d.sequence, d.attempt, d.held, d.stage, d.reason)
            for d in frame.departures
        ]
        chunks += [
            TRACE.pack(t.stage, t.received, t.started, t.computed, t.sent) for t in frame.traces
        ]
        for t in frame.tensors:
            chunks.append(
                TENSOR.pack(t.dtype, len(t.shape), *t.shape, *(0,) * (MAX_RANK - len(t.shape)))
            )
    except struct.error as e:
        raise EncodeError(f"a number does not fit its field: {e}") from e
    named = chain(
        [s.sequence for s in spans],
        *[_named(command) for command in frame.commands],
        [d.sequence for d in frame.departures],
    )
    if any(len(sequence) != SEQUENCE_ID_BYTES for sequence in named):
        raise EncodeError(f"a sequence id that has not {SEQUENCE_ID_BYTES} bytes")
    chunks.append(meta)
    head = b"".join(chunks)
    return [head + _CRC.pack(zlib.crc32(head)), *payloads]


def decode(parts: Sequence[Buffer], limits: FrameLimits) -> Frame:
    """The frame in these parts; its tensors' data are views of them. FrameError if they are not a
    legal frame.
    """
    head = parts[0] if parts else b""
    total = len(head)
    if total < _PREFIX.size or head[:4] != MAGIC:
        raise FrameError("foreign", f"{total} bytes that do not begin with the magic")
    version = _PREFIX.unpack_from(head)[1]
    if version != VERSION:
        raise VersionError(version, VERSION)
    if total < size.HEADER_BYTES + size.CRC_BYTES:
        raise FrameError("length", f"part 0 has {total} bytes")
    (
        _, _, kind_code, reserved, term, epoch, microbatch,
        n_spans, n_tokens, n_meta, n_commands, n_departures, n_traces, n_tensors, first, end,
    ) = _HEADER.unpack_from(head)  # fmt: skip
    if (
        n_spans > limits.max_spans
        or n_tokens > limits.max_tokens
        or n_meta > limits.max_meta_bytes
        or max(n_commands, n_departures, n_traces) > limits.max_records
        or n_tensors > limits.max_tensors
    ):
        raise FrameError("limit", "a count is above the limit of this link")
    at_tokens = size.HEADER_BYTES + n_spans * size.SPAN_BYTES
    at_commands = at_tokens + n_tokens * size.TOKEN_BYTES
    at_departures = at_commands + n_commands * size.COMMAND_BYTES
    at_traces = at_departures + n_departures * size.DEPARTURE_BYTES
    at_tensors = at_traces + n_traces * size.TRACE_BYTES
    at_meta = at_tensors + n_tensors * size.TENSOR_BYTES
    at_crc = at_meta + n_meta
    if at_crc + size.CRC_BYTES != total:
        raise FrameError("length", f"part 0 has {total} bytes, its counts say {at_crc + 4}")
    if n_tensors != len(parts) - 1:
        raise FrameError("parts", f"{len(parts) - 1} payloads, the header says {n_tensors}")
    view = memoryview(head)
    if zlib.crc32(view[:at_crc]) != _CRC.unpack_from(head, at_crc)[0]:
        raise FrameError("checksum", "part 0 was damaged")
    kind = _KINDS.get(kind_code)
    if kind is None or reserved:
        raise FrameError("enum", f"frame kind {kind_code}, reserved {reserved}")
    refill = Refill(first, end) if first or end else None
    records = SPAN.iter_unpack(view[size.HEADER_BYTES : at_tokens])
    spans = tuple([Span(*fields) for fields in records])
    if problem := _inconsistent(kind, spans, n_tokens, refill):
        raise FrameError("count", problem)
    if sum([s.outputs for s in spans]) > limits.max_tokens:
        raise FrameError("limit", "more outputs than a frame may have")
    tokens: tuple[int, ...] = struct.unpack_from(f"<{n_tokens}i", head, at_tokens)
    if tokens and (min(tokens) < 0 or (limits.vocab is not None and max(tokens) >= limits.vocab)):
        raise FrameError("token", "a token id is not in the vocabulary")
    constants, logprobs = unpack_meta(view[at_meta:at_crc], limits) if n_meta else ({}, {})
    commands: tuple[Command, ...] = ()
    departures: tuple[Departure, ...] = ()
    if n_commands:
        records = COMMAND.iter_unpack(view[at_commands:at_departures])
        commands = tuple([read_command(*c) for c in records])
    if n_departures:
        records = DEPARTURE.iter_unpack(view[at_departures:at_traces])
        departures = tuple([read_departure(*d) for d in records])
    traces = TRACE.iter_unpack(view[at_traces:at_tensors])
    tensors = zip(TENSOR.iter_unpack(view[at_tensors:at_meta]), parts[1:], strict=True)
    frame = Frame(
        kind,
        term,
        epoch,
        microbatch,
        spans,
        tokens,
        constants,
        commands,
        departures,
        tuple([read_trace(*t) for t in traces]),
        logprobs,
        tuple([read_tensor(descriptor, part, limits) for descriptor, part in tensors]),
        refill,
    )
    if n_commands and (problem := _crowded(frame)):
        raise FrameError("command", problem)
    return frame


def _named(command: Command) -> tuple[bytes, ...]:
    match command:
        case Fork(source, target):
            return source, target
        case Release(sequence):
            return (sequence,)
        case Barrier() | Turn():
            return ()


def _inconsistent(
    kind: FrameKind, spans: Sequence[Span], n_tokens: int, refill: Refill | None
) -> str | None:
    """What is wrong between the spans, the number of tokens and a refill, if anything."""
    lengths = [s.length for s in spans]
    if lengths and min(lengths) < 1:
        return "a span of no tokens"
    work = kind is FrameKind.WORK
    wanted = sum(lengths) if work else sum([s.outputs for s in spans])
    if wanted != n_tokens:
        return (
            f"{n_tokens} tokens, the spans' {'lengths' if work else 'outputs'} add up to {wanted}"
        )
    if refill and refill.first >= refill.end:
        return f"a refill of stages [{refill.first}, {refill.end})"
    if refill and any(s.outputs for s in spans):
        return "a refill that asks for tokens"
    return None


def _crowded(frame: Frame) -> str | None:
    """A turn stands alone: what is wrong, if something stands beside one."""
    if not any(isinstance(command, Turn) for command in frame.commands):
        return None
    alone = len(frame.commands) == 1 and frame.kind is FrameKind.WORK
    others = frame.spans or frame.departures or frame.traces or frame.tensors or frame.refill
    return None if alone and not others else "a turn beside something else"


def _check_limits(frame: Frame, meta_bytes: int, limits: FrameLimits) -> None:
    largest = max([t.nbytes for t in frame.tensors], default=0)
    for name, count, most in (
        ("spans", len(frame.spans), limits.max_spans),
        ("tokens", len(frame.tokens), limits.max_tokens),
        ("outputs", sum([s.outputs for s in frame.spans]), limits.max_tokens),
        ("commands", len(frame.commands), limits.max_records),
        ("departures", len(frame.departures), limits.max_records),
        ("traces", len(frame.traces), limits.max_records),
        ("bytes of constants and logprobs", meta_bytes, limits.max_meta_bytes),
        ("tensors", len(frame.tensors), limits.max_tensors),
        ("bytes in a tensor", largest, limits.max_tensor_bytes),
    ):
        if count > most:
            raise EncodeError(f"{count} {name}, this link carries at most {most}")
