"""One stream over two stages whose guesses are right as often as an oracle is told, against mlx-lm
on one core, against its tensor parallelism on two, and against ourselves without guesses.
"""

from __future__ import annotations

from functools import partial

from benchmarks.baseline_ring import TENSOR, RingPair
from benchmarks.checkpoint import random_prompt
from benchmarks.cluster import PinnedCluster
from benchmarks.guided.cluster import guided_cluster
from benchmarks.guided.common import Findings
from benchmarks.lineup import SPLIT
from benchmarks.models import STATE
from benchmarks.paced.oracle import Script, trace
from benchmarks.paced.reference import Answer, Reference
from benchmarks.report import Fact, at_least
from benchmarks.rounds import interleave, rate
from benchmarks.worker import Worker

PROMPT = 16
TOKENS, LONG = 120, 300
ACCEPTANCES = (0.0, 0.6, 0.8, 0.95)
ASKED = 0.8
ALONE, PARALLEL = "mlx-lm, one core, plain", "mlx-lm, tensor parallel over the ring, two cores"
OFF, NEVER = "shardbus, no speculation, start included", "shardbus, oracle 0.0, start included"


def measure(found: Findings) -> None:
    folder = found.options.model().folder()
    prompts = [random_prompt(folder, PROMPT, seed) for seed in range(len(ACCEPTANCES))]
    texts = [text for text, _ in prompts]
    environment = found.multiplier.environment
    with (
        found.single(folder) as alone,
        Reference(folder, alone) as reference,
        RingPair(TENSOR, folder, SPLIT, STATE, environment) as ring,
        PinnedCluster(folder, SPLIT, name="off") as off,
    ):
        counts = [found.tokens(LONG if a == 0.0 else TOKENS) for a in ACCEPTANCES]
        answers = [
            reference.answer(ids, count) for (_, ids), count in zip(prompts, counts, strict=True)
        ]
        scripts = [
            Script(answer.prompt, answer.tokens, trace(acceptance, count))
            for answer, acceptance, count in zip(answers, ACCEPTANCES, counts, strict=True)
        ]
        with guided_cluster(folder, SPLIT, scripts) as cluster:
            asked = ACCEPTANCES.index(ASKED)
            for warm in (off, cluster):
                warm.generate([texts[asked]], found.tokens(TOKENS))
            measured = interleave(
                {
                    ALONE: partial(_alone, alone, answers[asked]),
                    PARALLEL: partial(_parallel, ring, reference, answers[asked]),
                    **{
                        _ours(ACCEPTANCES[n]): partial(
                            _stream, cluster, reference, texts[n], answers[n]
                        )
                        for n in range(1, len(ACCEPTANCES))
                    },
                    OFF: partial(_whole, off, reference, texts[0], answers[0]),
                    NEVER: partial(_whole, cluster, reference, texts[0], answers[0]),
                },
                found.rounds,
                warm=0,
                turn=found.calm.turn,
            )
    found.checks += [
        at_least("oracle_0.8_vs_one_core", measured.ratio(_ours(ASKED), ALONE), 1.9),
        at_least("oracle_0.0_vs_no_speculation", measured.ratio(NEVER, OFF), 0.97),
    ]
    found.facts += [
        Fact(f"oracle {a} against one core", measured.ratio(_ours(a), ALONE))
        for a in ACCEPTANCES[1:]
    ]
    found.facts += [
        Fact("oracle 0.8 against one core, best/best", measured.best_ratio(_ours(ASKED), ALONE)),
        Fact(
            "oracle 0.0 against no speculation, best/best",
            measured.best_ratio(NEVER, OFF),
        ),
        Fact("tensor parallel against one core", measured.ratio(PARALLEL, ALONE)),
        Fact("oracle 0.8 against tensor parallel", measured.ratio(_ours(ASKED), PARALLEL)),
    ]
    found.rates(measured)
    found.agreed(reference, "oracle")
    found.notes.append(
        f"Oracle: the random 512 x 16 model in {SPLIT[0]} + {SPLIT[1]} layers; guesses are those "
        "of a fixed trace of right and wrong, there at once, in the place of a draft. "
        f"{counts[0]} tokens at 0.0, whose rate counts from the question on, else {counts[-1]}. "
        "What is known of how often guesses are right comes from the streams before: at 0.0 from "
        "one at 0.95."
    )


def _ours(acceptance: float) -> str:
    return f"shardbus, oracle {acceptance}"


def _alone(worker: Worker, answer: Answer) -> float:
    said = worker.ask(op="decode", prompt=answer.prompt, tokens=len(answer.tokens))
    return rate(said["times"])


def _parallel(ring: RingPair, reference: Reference, answer: Answer) -> float:
    said = ring.decode([answer.prompt], len(answer.tokens))
    reference.compare_ids(said["ids"], answer)
    return rate(said["times"])


def _stream(cluster: PinnedCluster, reference: Reference, text: str, answer: Answer) -> float:
    stream = cluster.generate([text], len(answer.tokens))[0]
    reference.compare(stream, answer)
    return rate(stream.times)


def _whole(cluster: PinnedCluster, reference: Reference, text: str, answer: Answer) -> float:
    """From the question to the last token."""
    stream = cluster.generate([text], len(answer.tokens))[0]
    reference.compare(stream, answer)
    return len(stream.ids) / (stream.times[-1] - stream.asked)
