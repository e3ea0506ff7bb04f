"""Whatever happens, and in whatever order: the policy stays sound, and comes back to RDMA."""

from __future__ import annotations

import pytest

from tests.machine.rdma_world import World

SEEDS = [
    *range(8),
    *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(8, 500)),
]


def trouble(world: World) -> None:
    """One thing that can happen."""
    rng = world.rng
    name = rng.choice(list(world.machines))
    machine = world.machines[name]
    match rng.randrange(12):
        case 0 | 1 | 2:
            world.kill(name, rng.choice(["signal", "stalled", "peer", "out-of-memory"]))
        case 3:
            world.restart_shardd(name)
        case 4:
            world.restart_coordinator()
        case 5:
            world.enable(rng.random() < 0.7)
        case 6:
            nodes = list(world.machines)
            rng.shuffle(nodes)
            world.pipeline = tuple(nodes[: rng.randint(0, len(nodes))])
        case 7:
            machine.bad = rng.choice(["", "the checksum differs"])
        case 8:
            machine.answers = rng.random() < 0.8
        case 9:
            machine.joins = rng.random() < 0.8
        case 11:
            machine.connected = rng.random() < 0.7
        case 10:
            world.test(*rng.sample(list(world.machines), 2))
    world.idle = rng.random() < 0.3


@pytest.mark.parametrize("seed", SEEDS)
def test_any_history(seed: int) -> None:
    world = World("abcd", seed, loss=0.15, doubling=0.15)
    world.slow = world.rng.choice([0.0, 0.5, 2.0])
    world.enable()
    for _ in range(60):
        world.run(world.rng.random() * 8)
        trouble(world)
    # Now all is well again: every machine was restarted.
    world.loss = world.doubling = world.slow = 0.0
    world.pipeline, world.idle = tuple("abcd"), True
    for name in world.machines:
        world.reboot(name)
        world.machines[name].connected = True
    world.run(5)
    world.enable()
    world.run(420)
    assert world.on_rdma == "abc", f"{world.rdma.waits} {world.paths}"
    running = {m.running.group for m in world.machines.values() if m.running}
    assert len(running) == 1, "processes of other groups are left"
    world.enable(False)
    world.run(10)
    assert not any(m.running for m in world.machines.values())


def test_a_crash_loop_starts_few_groups() -> None:
    """A group that dies as soon as it is used: ten minutes cost few starts."""
    world = World("ab")
    world.enable()
    for _ in range(2400):
        world.tick()
        if world.on_rdma:
            world.kill("b")
    assert 3 <= len(world.groups()) <= 9
