"""The benchmark of the gate runs, and its model of the devices agrees with the engine.

Releases on a million devices are measured on the model. These tests play the same releases on both.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

sys.path.insert(0, str(ROOT / "bench"))  # its modules import each other by name
try:
    import gate
    import gate_fleets
    from gate_model import World
finally:
    sys.path.pop(0)

SEEDS = 30
DEVICES = 1000

RELEASES = {
    "late30": ({"late_from": 0.3, "late_fails": 1.0}, {"late_from": 0.3}),
    "fail20": ({"fails": 0.2}, {"fails": 0.2}),
    "bad10": ({"fails": 0.1}, {"fails": 0.1}),
    "good1": ({"fails": 0.01}, {"fails": 0.01}),
}
"""By name: what the release does in the model and in the fleet under the engine."""


@pytest.mark.long
@pytest.mark.parametrize("name", RELEASES)
def test_the_model_agrees_with_the_engine(name: str) -> None:
    in_model, in_fleet = RELEASES[name]
    ours = [World(np.random.default_rng(seed), DEVICES, "ours", **in_model).run()
            for seed in range(SEEDS)]  # fmt: skip
    theirs = [gate_fleets.play(gate_fleets.Case(DEVICES, **in_fleet), seed)
              for seed in range(SEEDS)]  # fmt: skip
    back = sum(end.failed for end in ours)
    assert abs(back - sum(end.said == "back" for end in theirs)) <= 2
    which = "late" if name == "late30" else "exposed"
    model, engine = (median(getattr(end, which) for end in ends) for ends in (ours, theirs))
    assert model == pytest.approx(engine, rel=0.25, abs=3)


def test_a_model_without_the_detector_does_not_agree() -> None:
    ends = [
        World(np.random.default_rng(seed), DEVICES, "ours", detector=False, late_from=0.3,
              late_fails=1.0).run()
        for seed in range(5)
    ]  # fmt: skip
    engine = gate_fleets.play(gate_fleets.Case(DEVICES, late_from=0.3), 1)
    assert median(end.late for end in ends) > 1.5 * engine.late


CELLS = (
    "late30/1000", "late30_bricks/1000", "return30/1000", "late30_engine/1000", "bake6h/5_alone",
    "outage/5_alone", "restart/fails5_of30", "small/3_one_off", "small/3_half_exact",
    "waits/fails1", "bad10/of100", "edge5/of30", "near/fails8", "class4/of300",
    "class_small/classes_at_most", "null/trials5_of100", "power/errors1_60",
    "site_dark/dark_300_1of5", "site_dark/bricks_300_1of3",
    "ours/clean_passed", "naive/bad10_caught_10k", "peeking/latency30_caught",
)  # fmt: skip
FEW = {
    **{f"BENCH_GATE_{name}": "2" for name in ("ROLLOUTS", "SEEDS", "BAKES")},
    **{f"BENCH_{name}_SEEDS": "4" for name in ("FLEETS", "CLASSES", "NULL", "SITES")},
    "BENCH_NULL_POWER_SEEDS": "2",
}


@pytest.mark.long
def test_cells_of_each_key_are_measured_and_stored(tmp_path: Path) -> None:
    out = tmp_path / "gate.json"
    command = [sys.executable, str(ROOT / "bench" / "gate.py"), "--out", str(out)]
    first = subprocess.run(
        [*command, *CELLS[:2]], env=os.environ | FEW, check=True, capture_output=True, text=True
    )
    assert "[2/2]" in first.stdout
    told = subprocess.run(
        [*command, "--missing", *CELLS], env=os.environ | FEW, check=False, capture_output=True,
        text=True,
    )  # fmt: skip
    assert told.returncode in (0, 1), told.stderr  # 1: a bound does not hold with so few seeds
    assert f"[{len(CELLS) - 2}/{len(CELLS) - 2}]" in told.stdout, "two are stored already"
    found = json.loads(out.read_text())
    measured = {f"{key}/{cell}" for key in gate.KEYS for cell in found[key]}
    assert measured == set(CELLS)
    assert all(found[key][cell]["commit"] for key in gate.KEYS for cell in found[key])


def test_a_cell_that_is_not_there_is_refused() -> None:
    told = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "gate.py"), "late30/7"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 2
    assert "no such key or cell: late30/7; keys are ours, naive" in told.stderr
