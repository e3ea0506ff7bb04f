"""How hidden states are written on each hop: as the operator said, or as the measured speed of the
hop suggests when a request comes.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from daemon.fidelity import Fidelity
from daemon.scheduler.pipeline import Hop, Pipeline
from daemon.scheduler.prefix import PrefixIndex
from daemon.scheduler.trie import Tokens
from transports.codecs.choice import Cost, Speed, Traffic, choose
from transports.codecs.layout import AUTO, Codec, encoded_bytes
from transports.frame import Span, StageTrace

KEPT = 15  # samples of a kind
LARGE_BYTES = 32 << 10  # frames from here on say how fast the link is, smaller ones how long it is
IDLE_SECONDS = 1e-4  # a stage that waited for a frame for less may have been busy when it arrived
USUAL_ANSWER = 256  # tokens: few answers take all they may


class HopSpeed:
    """Of one hop, from frames that reached a stage that was waiting for them."""

    def __init__(self) -> None:
        self._small: deque[float] = deque(maxlen=KEPT)
        self._large: deque[tuple[int, float]] = deque(maxlen=KEPT)
        self._arrived = float("-inf")

    def learn(self, nbytes: int, sent: float, received: float, idle_since: float) -> None:
        """A frame of so many bytes; the stage has done nothing since `idle_since`. Where the link
        had another frame to carry first, its time counts from the arrival of that.
        """
        arrived, self._arrived = self._arrived, received
        if received - idle_since < IDLE_SECONDS:
            return
        seconds = received - max(sent, arrived - self.latency)
        if nbytes < LARGE_BYTES:
            self._small.append(seconds)
        else:
            self._large.append((nbytes, seconds))

    @property
    def latency(self) -> float:
        """Seconds of a small frame."""
        return max(0.0, median(self._small)) if self._small else 0.0

    @property
    def speed(self) -> Speed:
        """Nothing is known of its bytes per second before a large frame has passed."""
        rates = [(seconds - self.latency) / nbytes for nbytes, seconds in self._large]
        per_byte = median(rates) if rates else 0.0
        return Speed(1 / per_byte if per_byte > 0.0 else 0.0, self.latency)


class Hops:
    """Those of one layout."""

    def __init__(self, wish: str) -> None:
        """`wish`: a Codec's name, for all hops that can have it, or AUTO."""
        self._wish = wish
        self._hops: tuple[Hop, ...] = ()
        self._speeds: list[HopSpeed] = []
        self._sent: list[float] = []  # by each stage, the last time
        self._last: tuple[tuple[int, Codec], ...] | None = None

    def configure(self, pipeline: Pipeline) -> None:
        self._hops = pipeline.hops
        self._speeds = [HopSpeed() for _ in self._hops]
        self._sent = [float("-inf")] * (len(self._hops) + 1)
        self._last = None

    def path_changed(self, index: int) -> None:
        """Frames go another way on this hop: what is known of its speed is of no use."""
        if index < len(self._speeds):
            self._speeds[index] = HopSpeed()

    def observe(
        self,
        spans: Sequence[Span],
        fidelity_of: Callable[[bytes], Fidelity | None],
        traces: Sequence[StageTrace],
    ) -> None:
        """A frame came back complete. It teaches nothing if a sequence in it is not known."""
        if not self._hops or [t.stage for t in traces] != list(range(len(self._sent))):
            return
        rows: Counter[Fidelity | None] = Counter()
        for span in spans:
            rows[fidelity_of(span.sequence)] += span.length
        if None not in rows:
            for i, (hop, speed) in enumerate(zip(self._hops, self._speeds, strict=True)):
                nbytes = sum(
                    encoded_bytes(fidelity.codec_before(hop.layer), hop.width, n, hop.dtype)
                    for fidelity, n in rows.items()
                    if fidelity
                )
                speed.learn(nbytes, traces[i].sent, traces[i + 1].received, self._sent[i + 1])
        self._sent = [t.sent for t in traces]

    def fidelity(
        self, kv_bits: int, prompt: Tokens, traffic: Traffic, index: PrefixIndex, reach: int | None
    ) -> Fidelity:
        """Of a request that sends this. AUTO goes on as an earlier one did where that has most of
        the prompt: to compute it again would cost more than any codec saves.
        """
        chosen = ((hop.layer, self._codec(i, hop, traffic)) for i, hop in enumerate(self._hops))
        codecs = tuple((layer, codec) for layer, codec in chosen if codec is not Codec.RAW)
        found = Fidelity(kv_bits, codecs)
        if self._wish == AUTO:
            reused = {
                other: hit[1] if (hit := index.match(other, prompt, reach)) else 0
                for other in (found, *index.fidelities)
                if other.kv_bits == kv_bits and self._might_choose(other)
            }
            most = max(reused, key=lambda other: (reused[other], other == found))
            if reused[most] - reused[found] > len(prompt) // 2:
                found = most
        self._last = found.codecs
        return found

    def _might_choose(self, fidelity: Fidelity) -> bool:
        """AUTO, for some request in this layout."""
        hops = {hop.layer: hop.costs for hop in self._hops}
        return all(
            codec is Codec.FP8 and codec in hops.get(layer, {}) for layer, codec in fidelity.codecs
        )

    def as_dict(self) -> list[dict[str, Any]]:
        """For `pipeline`, one of each: `codec` is that of the request that came last."""
        last = dict(self._last or ())
        return [
            {
                "layer": hop.layer,
                "wish": self._wish,
                "codec": last.get(hop.layer, Codec.RAW).value if self._last is not None else None,
                "possible": sorted(codec.value for codec in hop.costs),
                "row_bytes": hop.width * hop.dtype.itemsize,
                "bytes_per_second": speed.speed.bytes_per_second or None,
                "latency": speed.latency,
            }
            for hop, speed in zip(self._hops, self._speeds, strict=True)
        ]

    def _codec(self, index: int, hop: Hop, traffic: Traffic) -> Codec:
        if self._wish != AUTO:
            codec = Codec(self._wish)
            return codec if codec in hop.costs else Codec.RAW
        # int8 loses much where a model has more massive channels than it keeps apart, and nobody
        # has looked whether this one has.
        costs: dict[Codec, Cost] = {c: cost for c, cost in hop.costs.items() if c is Codec.FP8}
        return choose(self._speeds[index].speed, hop.width, hop.dtype, traffic, costs)

    def check_integrity(self) -> None:
        assert len(self._speeds) == len(self._hops), "hops: speeds"
        assert len(self._sent) == len(self._hops) + 1 or not self._sent, "hops: stages"


def expected_traffic(prompt: int, answer: int, chunk: int, together: int) -> Traffic:
    """Of a request with so many tokens, whose prompt goes in such chunks, and whose steps share
    their frames with those of `together` - 1 others.
    """
    return Traffic(prompt, max(1, chunk), max(1, min(answer, USUAL_ANSWER)), max(1, together))
