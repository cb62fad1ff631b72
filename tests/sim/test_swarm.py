import pytest

from edgefleet.protocol.rollout import Status
from edgefleet.sim.virtual.swarm import mixture, play, swarm


@pytest.mark.long
def test_random_mixtures_break_nothing_and_all_end() -> None:
    said: list[str] = []
    result = swarm(range(1, 9), 200, processes=1, progress=said.append)
    assert result.violations == 0, said
    assert result.unfinished == 0, said
    assert len(result.verdicts) >= 2
    assert len(result.faults) >= 8
    assert set(result.verdicts) <= set(Status)


def test_a_seed_is_one_mixture_and_one_run() -> None:
    assert mixture(5) == mixture(5) != mixture(6)
    assert play(5, 100).trace_digest == play(5, 100).trace_digest


def test_a_failing_seed_comes_with_the_command_that_replays_it(monkeypatch) -> None:
    place = "edgefleet.rollout.constraints.reservations.Reservations.no_place"
    monkeypatch.setattr(place, lambda *_, **__: None)
    said: list[str] = []
    result = swarm(range(1, 4), 150, processes=1, progress=said.append)
    assert result.by_checker["exposure"] > 0
    assert f"  edgefleet sim replay {result.failing[0]} --devices 150" in said


def test_code_that_breaks_is_a_failing_seed_too(monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("row")

    monkeypatch.setattr("edgefleet.rollout.admission.control.Admission.offers", broken)
    said: list[str] = []
    result = swarm(range(1, 3), 50, processes=1, progress=said.append)
    assert (result.seeds, result.violations, result.unfinished) == (2, 2, 2)
    assert (result.failing, result.by_checker) == ((1, 2), {"code": 2})
    assert "  edgefleet sim replay 1 --devices 50" in said
