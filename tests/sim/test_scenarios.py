import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import GateSpec
from edgefleet.sim.virtual import scenario as scenarios
from edgefleet.sim.virtual.run import Run
from edgefleet.sim.virtual.scenario import Truth

QUALITY = {
    "quality_drop": "confidence_drop",
    "latency30": "latency",
    "accuracy3": "accuracy_drop",
    "drift": "drift",
    "slow_burn": "request_errors",
    "cpu_rises": "cpu_increase",
    "clients_gone": "request_drop",
}
IN_MINUTES = {"leaks": "memory_growth", "heats": "temperature"}  # a window lasts ten of them
IN_BAKE = {
    "bake6h",
    "outage",
    "labels_late",
    "labels_good",
}  # the requests of every device are judged


SLOW = {
    "above_limits", "approved", "bad8", "bad_client", "bake6h", "class_fails", "clients_gone", "cpu_rises",
    "disk_full", "drift", "flapping", "frozen", "halted", "heats", "labels_good", "labels_late", "leaks",
    "no_traffic", "old_agents", "outage", "paced", "quality_drop", "restored", "returns", "third_offline",
    "three_models", "undecided", "windows_and_budgets", "wrong_clocks",
}  # fmt: skip
"""The scenarios that take some seconds in full. They run on a handful of devices each time."""
ALL_AWAKE = {"serving_ends"}  # each device on which serving ends has a core of its own


def played(name: str, devices: int, seed: int = 7):
    """Play a scenario, with a small panel where no gate needs its telemetry."""
    wanted = scenarios.load(name)
    if name not in QUALITY and name not in IN_MINUTES and name not in IN_BAKE:
        wanted = replace(wanted, fleet=replace(wanted.fleet, panel=10))
    return Run(wanted, name=name, devices=devices, seed=seed).play()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name in SLOW else ())
        for name in scenarios.names()
    ],
)
def test_a_scenario_ends_as_it_says_and_breaks_nothing(name: str) -> None:
    many = (3000 if name in QUALITY else 1500) if scenarios.load(name).expect else 400
    few = name in IN_BAKE or name in ALL_AWAKE
    result = played(name, 150 if few else 600 if name in IN_MINUTES else many)
    assert result.violated == ()
    assert result.finished
    expected = scenarios.load(name).expect
    assert not expected or result.verdict in expected, result.text
    if name in IN_MINUTES:
        assert (result.verdict, result.reason) == ("reverted", IN_MINUTES[name])
    if name in QUALITY:  # faults that no single device detects
        assert (result.verdict, result.reason) == ("reverted", QUALITY[name])
        assert result.exposed < 1000, result.text


def test_serving_that_ends_after_the_last_wave_reverts_and_names_the_cause() -> None:
    result = played("serving_ends", 60)
    (rollout,) = result.rollouts
    closed = [wave.closed_s for wave in rollout.waves]
    assert None not in closed, "the bake has begun"
    assert max(filter(None, closed)) < 5400.0
    assert result.verdict == "reverted"
    assert result.text.startswith("Serving failed after the confirmation on ")
    assert "ended by itself 3 times in the last hour (3x SIGSEGV)" in result.text


@pytest.mark.parametrize("name", scenarios.names())
@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.long), 13])
def test_any_scenario_runs_on_a_handful_of_devices(name: str, devices: int) -> None:
    result = played(name, devices)
    assert result.violated == ()
    assert result.finished


def test_the_same_seed_is_the_same_run_and_another_seed_another() -> None:
    first = played("storm", 200)
    assert played("storm", 200).trace_digest == first.trace_digest
    assert played("storm", 200, seed=8).trace_digest != first.trace_digest


def test_faults_really_happen() -> None:
    result = played("storm", 600, seed=9)
    never = [kind for kind in scenarios.COUNTED if not result.faults.get(kind)]
    assert never == []


def test_a_scenario_can_come_from_a_file(tmp_path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('title = "mine"\n[release]\ncrashes = 1.0\n')
    result = Run(scenarios.load(str(file)), name="mine", devices=200, seed=1).play()
    assert (result.verdict, result.reason) == ("reverted", "error_rate")


@pytest.mark.parametrize("text", ["title = 3", 'title = "x"\nspeed = 2', "no toml"])
def test_a_file_that_is_no_scenario_says_where(text: str, tmp_path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(OperatorError, match=r"mine\.toml"):
        scenarios.load(str(file))


def test_an_unknown_scenario_names_those_there_are() -> None:
    with pytest.raises(OperatorError, match="good"):
        scenarios.load("godo")


@pytest.mark.parametrize(
    ("left", "drop", "verdict"),
    [
        (0.4, 0.3, "reverted"),
        (0.0, 1.0, "reverted"),  # a fall to near zero needs no bound
        pytest.param(0.4, 1.0, "completed", marks=pytest.mark.long),
        pytest.param(0.0, 0.3, "reverted", marks=pytest.mark.long),
    ],
)
def test_a_release_that_clients_leave_is_taken_back_where_the_plan_has_a_bound(
    left: float, drop: float, verdict: str
) -> None:
    drawn = scenarios.load("quality_drop")
    gate = replace(GateSpec(), max_request_drop=drop)
    wanted = replace(drawn, release=Truth(requests=left), rollout=replace(drawn.rollout, gate=gate))
    result = Run(wanted, name="clients_leave", devices=3000, seed=7).play()
    assert result.violated == ()
    assert result.verdict == verdict, result.text
    if verdict == "reverted":
        assert result.reason == "request_drop"
