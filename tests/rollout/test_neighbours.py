"""The gate sees the other models on the devices of a rollout, and blames the right release."""

import math
from collections.abc import Iterable
from random import Random

import pytest
from msgspec.structs import replace

from edgefleet.protocol.device import OutcomeKind, Scores, Switch, Telemetry
from edgefleet.protocol.metrics import CHANGES
from edgefleet.protocol.rollout import Difference, GateSpec, Status, Verb
from edgefleet.rollout.evidence.neighbours import Neighbours
from edgefleet.rollout.evidence.sequential import share_of
from edgefleet.rollout.limits import NEIGHBOURS
from edgefleet.testing import MemoryHub
from support.fleets import memory_hub
from support.plans import MODEL, manifest, outcome, spec

DEVICES = 240
TOOK_2 = Switch(model=MODEL, release="2")
GATE = GateSpec()
LATENCY, ERRORS = (metric for metric in CHANGES if metric.of_neighbours)


def beside(
    latency: float = 0.0,
    errors: float = 0.0,
    switched: Switch | None = None,
    *,
    model: str = "detector",
    before: str = "1",
    release: str = "1",
) -> Telemetry:
    """Telemetry of another model on a device."""
    return Telemetry(
        model=model, release=release, requests=10, errors=0, confidence_sum=9.0,
        confidence_count=10, latency_us_p50=1, latency_us_p95=100, memory_mib=1,
        scores=Scores(
            from_release=before, to_release=release, requests=100, latency_log_ratio=latency,
            error_rate_delta=errors, switched=switched,
        ),
    )  # fmt: skip


def rolling() -> tuple[MemoryHub, str, list[int], list[int]]:
    """A rollout of digits 2 that half of the devices took. Returns these devices and the others."""
    hub = memory_hub(DEVICES, "1", "2")
    hub.add_release(replace(manifest("1"), model="detector"), "d" * 64)
    hub.add_release(replace(manifest("2"), model="detector"), "e" * 64)
    for model in (MODEL, "detector"):
        rollout = hub.start(replace(spec("1", 100), model=model))
        hub.command(rollout, Verb.ADVANCE)
    rollout = hub.start(spec("2", 50, 100))
    active = hub.engine.rollout(rollout)
    took = [row for row in range(DEVICES) if active.inside(row)]
    for row in took:
        for kind in (OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED):
            sent = replace(outcome(rollout, "2", kind, at=hub.now), id=f"{row}-{kind}")
            assert hub.record(row, sent)
    return hub, rollout, took, sorted({*range(DEVICES)} - {*took})


def send(hub: MemoryHub, rows: Iterable[int], telemetry: Telemetry) -> None:
    for row in rows:
        hub.engine.intake.add_telemetry(row, telemetry, hub.now)


def status(hub: MemoryHub, rollout: str) -> tuple[Status, str, str]:
    hub.evaluate()
    view = hub.view(rollout)
    return view.status, view.reason, view.text


def test_a_release_that_makes_another_model_slow_is_rolled_back() -> None:
    hub, rollout, took, others = rolling()
    send(hub, took, beside(math.log(2), switched=TOOK_2))
    send(hub, others, beside())
    found, reason, text = status(hub, rollout)
    assert (found, reason) == (Status.REVERTING, "neighbour_harmed")
    assert "latency of detector 1 on the same devices grew by" in text


def test_a_release_that_makes_another_model_fail_is_rolled_back() -> None:
    hub, rollout, took, others = rolling()
    send(hub, others, beside())
    send(hub, took, beside(errors=0.1, switched=TOOK_2))
    found, reason, text = status(hub, rollout)
    assert (found, reason) == (Status.REVERTING, "neighbour_harmed")
    assert "failed requests of detector 1 on the same devices grew by 10 %" in text


def test_a_change_of_the_whole_fleet_is_nobodys_fault() -> None:
    hub, rollout, took, others = rolling()
    send(hub, others, beside(math.log(2), 0.3))
    send(hub, took, beside(math.log(2), 0.3, TOOK_2))
    assert status(hub, rollout)[0] is Status.RUNNING


@pytest.mark.parametrize(
    "telemetry",
    [
        pytest.param(beside(1.0, 0.5, before="1", release="2"), id="its own trial"),
        pytest.param(beside(1.0, 0.5, TOOK_2, before="1", release="2"), id="trial and switch"),
        pytest.param(beside(1.0, 0.5), id="no switch between the windows"),
        pytest.param(beside(1.0, 0.5, Switch(model="third", release="2")), id="third model"),
        pytest.param(beside(1.0, 0.5, Switch(model=MODEL, release="1")), id="the way back"),
        pytest.param(replace(beside(1.0, 0.5, TOOK_2), model=None), id="agent with one model"),
    ],
)
def test_another_models_own_trouble_is_not_attributed(telemetry: Telemetry) -> None:
    hub, rollout, took, others = rolling()
    send(hub, others, beside(release=telemetry.release, before=telemetry.release))
    send(hub, took, telemetry)
    assert status(hub, rollout)[0] is Status.RUNNING
    assert hub.view(rollout).evidence.quality == ()


def test_a_bad_release_of_the_other_model_is_compared_with_itself() -> None:
    """Detector 2 is slow everywhere, and detector 1 gets faster: only the same release is a pair."""
    hub, rollout, took, others = rolling()
    send(hub, others[:60], beside(-1.0, -0.5))
    send(hub, others[60:], beside(release="2", before="2"))
    send(hub, took, beside(switched=TOOK_2, release="2", before="2"))
    assert status(hub, rollout)[0] is Status.RUNNING
    (latency, errors) = hub.view(rollout).evidence.quality
    assert (latency.neighbour, latency.mean, errors.mean) == ("detector 2", 0.0, 0.0)


def pairs(neighbours: Neighbours, count: int, model: str, canary: float = 0.0) -> Difference:
    for row in range(0, 2 * count, 2):
        neighbours.add(row, beside(model=model), GATE, None)
        neighbours.add(row + 1, beside(canary, switched=TOOK_2, model=model), GATE, TOOK_2)
    found = neighbours.difference(LATENCY)
    assert found is not None
    return found


def test_each_device_counts_once_for_each_neighbour() -> None:
    neighbours = Neighbours()
    for _ in range(3):
        assert pairs(neighbours, 20, "detector").pairs == 20
    assert neighbours.difference(ERRORS) is not None


def test_more_neighbours_cost_evidence_and_no_false_alarms() -> None:
    alone, second = Neighbours(), Neighbours()
    pairs(second, 40, "quiet")
    one, two = pairs(alone, 40, "slow", 0.6), pairs(second, 40, "slow", 0.6)
    assert (one.neighbour, two.neighbour) == ("slow 1", "slow 1")
    assert one.e_value / two.e_value == pytest.approx(4.0)
    assert sum(share_of(number) for number in range(1, 10_000)) < 1


def test_neighbours_that_nobody_publishes_are_bounded() -> None:
    neighbours = Neighbours()
    for number in range(NEIGHBOURS + 10):
        neighbours.add(0, beside(model=f"m{number}"), GATE, None)
        neighbours.add(1, beside(1.0, switched=TOOK_2, model=f"m{number}"), GATE, TOOK_2)
    found = neighbours.difference(LATENCY)
    assert found is not None
    assert found.neighbour == "m0 1"


def test_a_release_at_the_limit_is_seldom_rolled_back() -> None:
    chance, needed = Random(7), 1200.0  # twelve shares of alpha, 1 %
    alarms = 0
    for _ in range(60):
        neighbours = Neighbours()
        for row in range(0, 160, 2):
            latency = chance.gauss(math.log(1.25), 0.2)
            neighbours.add(row, beside(chance.gauss(0.0, 0.2)), GATE, None)
            neighbours.add(row + 1, beside(latency, switched=TOOK_2), GATE, TOOK_2)
        found = neighbours.difference(LATENCY)
        assert found is not None
        alarms += found.e_value >= needed
    assert alarms == 0
