"""Where the time goes, per stage and hop, from the traces that frames bring back."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from daemon.hop_path import HopPath
from transports.frame import StageTrace

KEPT = 512  # samples of each kind


class Samples:
    """The last durations of one kind."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=KEPT)

    def add(self, seconds: float) -> None:
        self._values.append(max(0.0, seconds))  # clocks of two machines differ a little

    @property
    def known(self) -> bool:
        """Whether there are any."""
        return bool(self._values)

    def as_dict(self) -> dict[str, float | int | None]:
        ordered = sorted(self._values)
        return {
            "count": len(ordered),
            "p50": _percentile(ordered, 0.50),
            "p99": _percentile(ordered, 0.99),
        }


class PipelineStats:
    """Of one layout. Hop i leads to stage i; the last one leads back to the coordinator."""

    def __init__(self, stages: int) -> None:
        self._queue = [Samples() for _ in range(stages)]
        self._compute = [Samples() for _ in range(stages)]
        self._encode = [Samples() for _ in range(stages)]
        self._link = [{path: Samples() for path in HopPath} for _ in range(stages + 1)]
        self._path = [(HopPath.ZMQ, float("-inf"))] * (stages + 1)  # of each hop, and since when
        self._busy: list[deque[tuple[float, float]]] = [deque(maxlen=KEPT) for _ in range(stages)]

    @property
    def stages(self) -> int:
        return len(self._queue)

    def path_changed(self, hop: int, path: HopPath, now: float) -> None:
        """Frames that are under way may have gone by the other one: they do not count there."""
        if hop < len(self._path):
            self._path[hop] = (path, now)

    def observe(self, traces: Sequence[StageTrace], sent: float, now: float) -> None:
        """A frame that was sent at `sent` came back now."""
        before = sent
        for index, trace in enumerate(traces):
            if trace.stage != index or index >= self.stages:
                return  # not a trace of this layout
            self._passed(index, trace.received - before, sent)
            self._queue[index].add(trace.started - trace.received)
            self._compute[index].add(trace.computed - trace.started)
            self._encode[index].add(trace.sent - trace.computed)
            self._busy[index].append((trace.started, trace.computed))
            before = trace.sent
        if len(traces) == self.stages:
            self._passed(self.stages, now - before, sent)

    def _passed(self, hop: int, seconds: float, sent: float) -> None:
        """A frame that was sent to the first stage at `sent`."""
        path, since = self._path[hop]
        if sent >= since:
            self._link[hop][path].add(seconds)

    def busy_share(self, stage: int, now: float, window: float) -> float | None:
        """Share of the last `window` seconds that the stage computed; of less, when less is known.
        None when nothing is.
        """
        spans = self._busy[stage]
        if not spans:
            return None
        since = now - window
        if len(spans) == KEPT or spans[0][0] > since:
            since = max(since, spans[0][0])
        if now <= since:
            return None
        busy = sum(max(0.0, min(end, now) - max(start, since)) for start, end in spans)
        return min(1.0, busy / (now - since))

    def as_dict(self, now: float, window: float = 10.0) -> dict[str, Any]:
        """For `shardctl pipeline`: seconds, and shares from 0 to 1."""
        stages = []
        for i in range(self.stages):
            busy = self.busy_share(i, now, window)
            stages.append(
                {
                    "stage": i,
                    "queue": self._queue[i].as_dict(),
                    "compute": self._compute[i].as_dict(),
                    "encode": self._encode[i].as_dict(),
                    "busy": busy,
                    "bubble": None if busy is None else 1.0 - busy,
                }
            )
        hops = [
            {
                "hop": i,
                "link": samples[self._path[i][0]].as_dict(),
                "paths": {path.value: one.as_dict() for path, one in samples.items() if one.known},
            }
            for i, samples in enumerate(self._link)
        ]
        return {"window_seconds": window, "stages": stages, "hops": hops if stages else []}

    def check_integrity(self) -> None:
        assert len(self._link) == len(self._path) == self.stages + 1, "trace: hops"
        assert all(len(b) <= KEPT for b in self._busy), "trace: unbounded"


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
