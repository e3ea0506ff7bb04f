"""Who decides about RDMA: groups, hops, what follows a loss, and what is not tried again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.cluster.events import GroupLost
from daemon.cluster.rdma.attempts import Attempts
from daemon.cluster.rdma.events import CablesAre, Remember
from daemon.hop_path import HopPath
from tests.machine.rdma_world import RULES, Machine, World


def standing(names: str = "abc") -> World:
    """Enabled, and every hop uses RDMA."""
    world = World(names)
    world.enable()
    world.run(5)
    assert world.on_rdma == names[:-1]
    return world


def test_nothing_happens_unless_it_is_enabled() -> None:
    world = World()
    world.run(20)
    assert not world.started
    assert world.why("a") == "it is not enabled"
    assert world.rdma.settled


def test_one_group_in_the_order_of_the_pipeline() -> None:
    world = World("abc")
    world.pipeline = ("b", "a", "c")
    world.enable()
    world.run(5)
    first = {node: start for node, start in world.started}
    assert {node: start.rank for node, start in first.items()} == {"b": 0, "a": 1, "c": 2}
    assert {start.group for start in first.values()} == {1}
    assert first["a"].hosts == ["b:7000", "a:7000", "c:7000"]
    assert world.on_rdma == "ba"
    assert world.paths["a"].rank == 2
    assert len(world.probes) == 2  # one good one is enough the first time
    assert world.rdma.settled


def test_hops_stay_on_zeromq_until_all_have_joined_and_the_probe_was_good() -> None:
    world = World()
    world.machines["c"].joins = False
    world.machines["c"].failure = "never"
    world.machines["b"].bad = "the checksum differs"
    world.enable()
    world.run(0.5)
    assert world.on_rdma == ""
    assert world.why("a") == "the group is being started"
    world.machines["c"].joins = True
    world.run(3)
    assert world.on_rdma == "a"
    assert world.why("b") == "the probe failed: the checksum differs"
    assert world.rdma.settled


def test_a_lost_member_sends_every_hop_to_zeromq_at_once() -> None:
    world = standing()
    world.kill("c")
    before = len(world.over)
    while len(world.over) == before:
        world.tick()
    assert world.on_rdma == ""
    assert {node for node, stop in world.stopped if stop.group == 1} == set("abc")
    assert "c: signal SIGSEGV" in world.over[0].why
    assert world.over[0].reason == "signal"


def test_a_lost_path_ends_the_group_before_shardd_has_said_anything() -> None:
    world = standing()
    world.step(GroupLost(1, "stalled", "b: it does nothing"))
    assert world.on_rdma == ""
    assert world.over[0].why == "b: it does nothing"
    world.step(GroupLost(1, "stalled", "it is over already"))
    assert len(world.over) == 1


def test_the_way_back_takes_a_pause_and_three_good_probes() -> None:
    world = standing()
    world.kill("b")
    world.tick()
    world.tick()
    ended, probes = world.now, len(world.probes)
    while world.groups()[-1] == 1:
        world.tick()
    assert world.now - ended >= RULES.first_pause - 0.5
    while not world.on_rdma:
        world.tick()
    world.run(1)
    assert world.on_rdma == "ab"
    assert len(world.probes) - probes == 2 * RULES.good_to_return
    again = world.now
    world.kill("b")  # it lasted for seconds: a longer pause
    while world.groups()[-1] == 2:
        world.tick()
    assert world.now - again >= 2 * RULES.first_pause - 0.5


def test_an_operator_who_enables_it_again_waits_for_no_pause() -> None:
    world = standing()
    for _ in range(4):
        world.kill("b")
        world.run(0.5)
        world.enable()
        world.run(5)
        assert world.on_rdma == "ab"


def test_two_failed_starts_in_a_row_are_enough() -> None:
    world = World()
    world.machines["b"].joins = False
    world.enable()
    world.run(600)
    assert world.groups() == [1, 2]
    assert "not tried again until" in world.why("a")
    assert "errno 22" in world.why("a")
    world.enable()
    world.run(60)
    assert world.groups() == [1, 2], "an operator's word does not mend a driver"
    assert world.rdma.settled


@pytest.mark.parametrize("how", ["boot", "devices", "cable"])
def test_another_boot_or_cable_ends_the_quarantine(how: str) -> None:
    world = World()
    world.machines["b"].joins = False
    world.machines["b"].devices = ["rdma_en2"]
    world.enable()
    world.run(100)
    world.restart_coordinator()
    world.run(100)
    assert world.groups() == [1, 2], "a new coordinator remembers it"
    world.machines["b"].joins = True
    if how == "boot":
        world.reboot("b")
    elif how == "devices":
        world.machines["b"].devices = ["rdma_en5"]
    else:
        world.machines["b"].unplugged = ["rdma_en3"]
        world.run(5)
        assert world.rdma.attempts.quarantine, "another port without a cable"
        world.machines["b"].unplugged += ["rdma_en2"]
        world.run(5)
        world.machines["b"].unplugged = []
    world.run(20)
    assert world.on_rdma == "ab"
    assert world.memory is not None
    assert (world.memory.failures, world.memory.quarantine) == (0, ())


def test_what_can_never_succeed_is_tried_once() -> None:
    world = World()
    world.machines["b"].joins, world.machines["b"].failure = False, "queue-pairs"
    world.enable()
    world.run(300)
    assert world.groups() == [1]


def test_a_member_that_leaves_the_cluster_is_no_failure_of_rdma() -> None:
    world = World()
    for machine in world.machines.values():
        machine.joins = False
        machine.failure = "never"
    world.enable()
    for _ in range(3):
        world.run(0.5)
        world.restart_shardd("b")
        world.run(1)
    assert world.rdma.attempts.failures == 0


def test_no_start_without_budget() -> None:
    world = World()
    world.machines["b"].budget = 0
    world.enable()
    world.run(20)
    assert not world.started
    assert world.why("a") == "b: no group start is left in this boot"
    assert world.rdma.settled


def test_a_node_that_cannot_leaves_the_others_their_group() -> None:
    world = World("abcd")
    world.machines["a"].backends = []
    world.machines["a"].why_not = "mlx has JACCL on macOS only"
    world.enable()
    world.run(5)
    assert world.on_rdma == "bc"
    assert world.why("a") == "a: mlx has JACCL on macOS only"
    world.machines["b"].backends = ["jaccl"]
    world.run(2.5)
    assert world.on_rdma == "bc", "what could be does not end what is"


def test_neighbours_that_offer_the_same() -> None:
    world = World("abcdef")
    for name, backends in zip("abcdef", (["x"], ["y"], ["y"], [], ["x"], ["x"]), strict=True):
        world.machines[name].backends = backends
        world.rdma.offers.hear(world.machines[name].offer())
    run = world.rdma.offers.longest_run
    assert run("abcdef") == ("b", "c")
    assert run("aef") == ("a", "e", "f")
    assert run("adb") == ()
    assert run("bcaef") == ("a", "e", "f")
    assert run("a") == run("") == ()


def test_another_order_of_the_same_nodes_leaves_the_group_standing() -> None:
    world = standing()
    world.pipeline = ("a", "c", "b")
    world.run(5)
    assert world.groups() == [1]
    assert not world.over
    assert world.why("a") == "the two are not neighbours in the group"
    assert world.on_rdma == "c"
    world.pipeline = ("a", "b", "c")
    world.run(5)
    assert world.on_rdma == "ab"
    assert world.groups() == [1]


def test_a_node_that_joins_waits_until_nothing_runs() -> None:
    world = standing("abc")
    world.pipeline = ("a", "b")
    world.run(2)
    assert world.on_rdma == "a"
    world.machines["d"] = type(world.machines["a"])("d")
    world.pipeline = ("a", "b", "c", "d")
    world.run(20)
    assert world.groups() == [1]
    assert world.on_rdma == "ab"
    assert world.why("c") == "d is not in the group: it comes in when nothing runs"
    world.idle = True
    world.run(10)
    assert world.groups() == [1, 2]
    assert world.on_rdma == "abc"
    assert world.rdma.attempts.failures == 0


def test_a_restarted_coordinator_adopts_the_group() -> None:
    world = standing()
    world.restart_coordinator()
    world.run(5)
    assert world.on_rdma == "ab"
    assert world.groups() == [1]
    assert not world.stopped
    world.kill("a")
    world.run(20)
    assert world.groups() == [1, 2], "numbers only grow"
    assert world.on_rdma == "ab"


def test_a_restarted_coordinator_ends_what_is_not_whole() -> None:
    world = standing()
    world.machines["b"].running = None  # and nobody said so
    world.machines["c"].joined = world.machines["a"].joined = False
    world.restart_coordinator()
    world.run(30)
    assert {node for node, stop in world.stopped if stop.group == 1} >= {"a", "c"}
    assert world.on_rdma == "ab"
    assert world.groups() == [1, 2]


def test_a_coordinator_that_was_told_to_disable_it_ends_what_it_finds() -> None:
    world = standing()
    world.memory = Remember(False, 0, (), "")
    world.restart_coordinator()
    world.run(5)
    assert {node for node, _ in world.stopped} == set("abc")
    assert not any(machine.running for machine in world.machines.values())


def test_a_probe_that_nobody_answers_ends_the_group() -> None:
    world = World()
    world.machines["b"].answers = False
    world.enable()
    world.run(RULES.probe_within + 4)
    assert world.over[0].why == "b did not answer a probe within 12 s"
    assert world.on_rdma == ""
    world.run(600)
    assert world.groups() == [1, 2]


def test_who_does_not_join_is_named() -> None:
    world = World()
    world.machines["c"].joins, world.machines["c"].failure = False, "never"
    world.machines["c"].began = 1e9
    world.enable()
    for _ in range(200):
        world.machines["c"].began = world.machines["a"].began = world.now
        world.machines["b"].began = world.now
        world.tick()
    assert "did not join within 35 s" in world.over[0].why


def test_disable_turns_the_hops_back_before_the_group_ends() -> None:
    world = standing()
    world.enable(False)
    assert world.on_rdma == ""
    assert not world.stopped
    assert world.why("a") == "it is not enabled"
    world.run(1)
    assert {node for node, _ in world.stopped} == set("abc")
    world.run(60)
    assert world.groups() == [1]
    assert not any(machine.running for machine in world.machines.values())


def test_a_test_of_a_pair_uses_the_group_that_stands() -> None:
    world = standing()
    world.test("b", "c")
    world.run(1)
    (tested,) = world.tested
    assert (tested.a, tested.b, tested.why) == ("b", "c", "")
    assert tested.bytes_per_second == 1e9
    assert world.groups() == [1]
    world.test("a", "c")
    world.run(1)
    assert "does not join them" in world.tested[1].why


def test_a_test_of_a_pair_makes_a_group_and_ends_it() -> None:
    world = World()
    world.run(3)
    world.test("a", "c")
    world.test("a", "b")
    assert world.tested[0].why == "another test is under way"
    world.run(5)
    assert (world.tested[1].b, world.tested[1].why) == ("c", "")
    assert {node for node, _ in world.started} == {"a", "c"}
    assert not any(machine.running for machine in world.machines.values())
    assert HopPath.RDMA not in {wish.path for wish in world.paths.values()}
    world.machines["c"].joins = False
    world.test("a", "c")
    world.run(5)
    assert world.tested[2].why == "c: errno 22"
    world.machines["c"].why_not = "it was taken away"
    world.run(3)
    world.test("a", "c")
    assert world.tested[3].why == "c: it was taken away"


def test_jaccl_gets_its_matrix_and_the_address_on_the_cable() -> None:
    world = World("ab")
    for machine in world.machines.values():
        machine.backends = ["jaccl"]
    world.enable()
    world.run(2.5)
    assert world.why("a") == "no cables"
    assert not world.started
    matrix = (((), ("rdma_en5",)), (("rdma_en2",), ()))
    world.cables = CablesAre(0, matrix, "169.254.1.1", "")
    world.run(RULES.probe_again_after + 3)
    (node, start) = world.started[0]
    assert node == "a"
    assert start.devices == [[[], ["rdma_en5"]], [["rdma_en2"], []]]
    assert start.hosts == ["169.254.1.1:7000", "b:7000"]
    assert world.on_rdma == "a"
    assert world.rdma.attempts.failures == 0


def test_a_probe_that_was_lost_is_made_again() -> None:
    world = World("ab")
    world.machines["a"].answers = False
    world.enable()
    while not world.probes:
        world.tick()
    world.tick()
    world.machines["a"].answers = True
    world.run(RULES.ask_again_after + 0.5)
    assert world.on_rdma == "a"
    assert len({probe.message for probe in world.probes}) == 1
    assert not world.over


def test_a_group_waits_for_the_end_of_the_one_before() -> None:
    """Its address is taken until then, and the next one is only known afterwards."""
    world = standing("ab")
    world.machines["b"].stubborn = True
    world.kill("a")
    world.run(20)
    assert world.groups() == [1]
    assert world.why("a") == "b has not ended the last group yet"
    assert not world.rdma.settled
    world.machines["b"].stubborn = False
    world.run(10)
    assert world.on_rdma == "a"


def test_a_stage_that_is_not_connected_gets_no_frames() -> None:
    world = World("abc")
    world.machines["c"].connected = False
    world.enable()
    world.run(5)
    assert world.on_rdma == "a"
    assert world.why("b") == "the stage of c is not connected to its rdma process"
    assert not world.rdma.settled, "it may connect any moment"
    world.machines["c"].connected = True
    world.run(1)
    assert world.on_rdma == "ab"
    world.machines["b"].connected = False
    world.run(1)
    assert world.on_rdma == ""
    world.run(RULES.join_within)
    assert world.rdma.settled
    assert not world.over


@pytest.mark.parametrize("order", ["abc", "cba"])
def test_who_follows_others_is_not_what_failed(order: str) -> None:
    """Its neighbours say first that b is gone; why, b's shardd says later."""
    for reason, failures in (("start", 1), ("signal", 1), ("asked", 0)):
        world = World("abc")
        for machine in world.machines.values():
            machine.bad = "it is slow"  # so that nothing is proven
        world.enable()
        world.run(3)
        number = world.groups()[-1]
        for name in order:
            machine = world.machines[name]
            machine.running, machine.joined, machine.ended = None, False, number
            machine.reason, machine.detail = "peer", "b is gone"
            if name == "b":
                machine.reason, machine.detail = reason, "of its own"
        for name in order:
            world.step(world.machines[name].offer())
        assert len(world.over) == 1
        assert world.rdma.attempts.failures == failures, reason
        if failures:
            assert world.rdma.attempts.why == "b: of its own"


def test_a_gone_shardd_is_not_what_failed() -> None:
    world = World("abc")
    for machine in world.machines.values():
        machine.bad = "it is slow"
    world.enable()
    world.run(3)
    world.machines["c"].shardd = "s2"
    world.machines["c"].running = None
    for name in "ab":
        machine = world.machines[name]
        machine.running, machine.ended, machine.reason = None, world.groups()[-1], "peer"
        world.step(machine.offer())
    world.run(1)
    assert world.over
    assert world.rdma.attempts.failures == 0


def test_what_failed_is_released_by_nothing_but_a_change() -> None:
    then = {"a": ("boot-1", ("rdma_en2",)), "b": ("boot-1", ("rdma_en5",))}
    others = {"c": ("boot-1", ("rdma_en2",)), "d": ("boot-1", ("rdma_en5",))}
    attempts = Attempts(RULES)
    for group in (then, others):
        attempts.ended(group, None, "queue-pairs", "errno 16", 0.0)
    attempts.ended({}, 100.0, "signal", "another group ended", 0.0)
    attempts.succeeded()
    assert attempts.quarantined("ab")
    assert attempts.quarantined("cd")

    def release(node: str, boot: str, *devices: str, unplugged: tuple[str, ...] = ()) -> bool:
        machine = Machine(node, boot=boot, devices=[*devices])
        return attempts.release(replace(machine.offer(), unplugged=[*unplugged]))

    assert not release("a", "boot-1")
    assert not release("a", "", "rdma_en2", unplugged=("rdma_en5",))
    assert not release("a", "")
    assert release("a", "boot-1", "rdma_en3", "rdma_en2")
    assert not attempts.quarantined("ab")
    assert attempts.quarantined("cd"), "another group"
    assert not attempts.quarantined("bc")
    assert release("d", "boot-2")
    assert not attempts.quarantined("cd")


def test_what_is_over_is_forgotten() -> None:
    world = standing("ab")
    for _ in range(20):
        world.kill("b")
        world.run(1)
        world.enable()
        world.run(6)
    leftovers = world.rdma._leftovers
    assert len(leftovers._started) <= 2
    assert len(leftovers._stopped_at) <= 4
