import threading

from edgefleet.base.clock import SystemClock
from edgefleet.sim.load.event_loop import EventLoop, Scope
from edgefleet.sim.load.realtime import RealTime


def test_actions_happen_in_the_order_of_their_times_then_of_asking() -> None:
    world, seen = EventLoop(10.0), []
    for name, at in (("late", 12.0), ("first", 11.0), ("second", 11.0), ("past", 3.0)):
        world.at(at, lambda name=name: seen.append((name, world.now())))
    assert world.run(11.5)
    assert seen == [("past", 10.0), ("first", 11.0), ("second", 11.0)]
    assert world.now() == 11.5
    assert world.next_at() == 12.0


def test_a_cancelled_action_does_not_happen() -> None:
    world, seen = EventLoop(), []
    world.at(1.0, lambda: seen.append("kept"))
    world.at(0.5, lambda: seen.append("cancelled")).cancel()
    world.run(2.0)
    assert seen == ["kept"]
    assert world.next_at() is None


def test_a_run_that_is_cut_short_says_so_and_stays_at_its_last_action() -> None:
    world = EventLoop()
    for at in (1.0, 2.0, 3.0):
        world.at(at, lambda: None)
    assert not world.run(9.0, at_most=2)
    assert world.now() == 2.0
    assert world.run(9.0, at_most=2)


def test_a_scope_takes_its_appointments_and_callbacks_along() -> None:
    world, seen = EventLoop(), []
    gone, stays = Scope(world), Scope(world)
    for scope, name in ((gone, "gone"), (stays, "stays")):
        scope.after(1.0, lambda name=name: seen.append(name))
    guarded = gone.guarded(seen.append)
    gone.end()
    guarded("called")
    world.run(2.0)
    assert seen == ["stays"]


def test_a_paced_world_lets_other_threads_in_and_stops_when_told() -> None:
    world, seen = EventLoop(500.0), []
    pacer = RealTime(world, SystemClock())
    world.after(0.02, lambda: seen.append("own"))

    def other() -> None:
        pacer.post(lambda: seen.append("posted"))
        pacer.post(lambda: world.after(0.05, pacer.stop))

    thread = threading.Thread(target=other)
    thread.start()
    pacer.run()
    thread.join()
    assert sorted(seen) == ["own", "posted"]
    assert world.now() >= 500.05
