"""Clocks, when the machine's clock is set."""

from edgefleet.base.clock import SteadyClock


class Machine:
    def __init__(self) -> None:
        self.wall, self.since_boot = 1_000.0, 5.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.since_boot


def test_a_steady_clock_begins_at_the_wall_time_and_goes_on_by_what_passes() -> None:
    machine = Machine()
    clock = SteadyClock(machine)
    assert clock.now() == 1_000.0
    machine.wall += 3_600.0
    machine.since_boot += 2.0
    assert clock.now() == 1_002.0, "the clock was set forward by an hour"
    machine.wall -= 7_200.0
    assert clock.now() == 1_002.0
    assert clock.monotonic() == 7.0
