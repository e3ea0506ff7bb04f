"""The ladder's last row, all of it together: eight streams that are batched and guessed. What one
stream gives so is in the rows with guesses.
"""

from __future__ import annotations

from benchmarks.limit import best_batches, best_guessed_batches
from benchmarks.paced.field import PROMPTS, THREE, TWO, Field, Row
from benchmarks.paced.guessed import ASKED, DRAFTED
from benchmarks.paced.oracle import Script, trace
from benchmarks.paced.pace import Pace

STREAMS = len(PROMPTS)
TOKENS = 64


def two_nodes(field: Field) -> None:
    _together(field, TWO)


def three_nodes(field: Field) -> None:
    _together(field, THREE)


def _together(field: Field, pace: Pace) -> None:
    answers = field.answers(STREAMS, TOKENS)
    scripts = [
        Script(answer.prompt, answer.tokens, trace(ASKED, len(answer.tokens), seed))
        for seed, answer in enumerate(answers)
    ]
    with field.cluster(pace, scripts, guess_seconds=DRAFTED.each) as paced:
        ours = field.streams(paced, answers)
    rights = [script.right for script in scripts]
    limit, groups, guesses = best_guessed_batches(pace, rights, DRAFTED)
    without, _ = best_batches(pace, STREAMS)
    how = f"groups of {groups}, {guesses} guesses; without guesses {without:.4g}"
    nodes = len(pace.passes)
    name = (
        f"all together: {STREAMS} streams, {nodes} nodes, an oracle right {ASKED:.0%} of the time"
    )
    field.add(Row(name, "–", ours, limit, how=how))
