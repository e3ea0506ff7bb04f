"""When a child is started again."""

from __future__ import annotations

import signal

from daemon.supervisor.child import explain
from daemon.supervisor.policy import RestartPolicy, RestartRules

RULES = RestartRules(first_delay=1.0, factor=2.0, longest_delay=5.0, burst=4, window=100.0)


def test_delays_grow_to_a_cap_and_then_the_breaker_opens() -> None:
    policy = RestartPolicy(RULES)
    assert [policy.ended(t) for t in (0.0, 1.0, 2.0, 3.0, 4.0)] == [1.0, 2.0, 4.0, 5.0, None]
    policy.check_integrity()
    assert policy.restarts == 4


def test_a_child_that_ran_long_starts_from_the_first_delay() -> None:
    policy = RestartPolicy(RULES)
    for t in (0.0, 1.0, 2.0):
        policy.ended(t)
    assert policy.ended(500.0) == 1.0


def test_exits_are_explained() -> None:
    assert explain(-signal.SIGKILL, 1, "")[0] == "out-of-memory"
    malloc = "RuntimeError: [malloc] Unable to allocate 9 bytes."
    assert explain(1, 0, malloc) == ("out-of-memory", f"exit code 1: {malloc}")
    assert explain(1, 0, "MemoryError")[0] == "out-of-memory"
    assert explain(-signal.SIGSEGV, 0, "x") == ("signal", "signal SIGSEGV")
    assert explain(3, 0, "error: no such file") == ("exit", "exit code 3: error: no such file")
    assert explain(0, 0, "bye") == ("exit", "exit code 0")
