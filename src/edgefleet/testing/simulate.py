"""Run one scenario in the simulator: a scenario of edgefleet, or your own."""

from pathlib import Path

from edgefleet.rollout.evidence.gate import Gate, judge
from edgefleet.sim.virtual import scenario as scenarios
from edgefleet.sim.virtual.result import Result
from edgefleet.sim.virtual.run import Run


def simulate(
    scenario: str | Path, devices: int = 500, *, seed: int = 7, gate: Gate = judge
) -> Result:
    """Run a scenario on the real engine and the real agents. All invariants are checked.

    ``scenario`` is a name of `edgefleet sim list` or the path of a TOML file. ``gate`` judges the
    waves. The same seed gives the same ``trace_digest``. Raises OperatorError ``not_found`` or
    ``setting_invalid``.
    """
    loaded = scenarios.load(str(scenario))
    return Run(loaded, name=str(scenario), devices=devices, seed=seed, gate=gate).play()
