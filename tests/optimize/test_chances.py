"""How often the gate on accuracy errs: the table of docs/optimize-proof.md is true."""

import re
from pathlib import Path

import numpy as np
import pytest

from edgefleet.optimize.paired import share_interval
from support.chances import chance_of_pass, passes

PAGE = Path(__file__).parents[2] / "docs" / "optimize-proof.md"
KEPT = (1.0, 0.995, 0.99, 0.985, 0.98, 0.97)


def rows() -> dict[int, list[float]]:
    found = re.findall(r"^\| (\d+) \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    return {
        int(cases): [float(cell.rstrip(" %")) / 100 for cell in cells.split("|")]
        for cases, cells in found
    }


@pytest.mark.parametrize(
    "cases", [719, *(pytest.param(cases, marks=pytest.mark.long) for cases in (200, 2_000, 5_000))]
)
def test_the_table_of_the_page_is_that_of_the_gate(cases: int) -> None:
    table = rows()
    assert set(table) == {200, 719, 2_000, 5_000}
    found = [chance_of_pass(cases, kept) for kept in KEPT]
    assert table[cases] == pytest.approx(found, abs=5.1e-4)


def test_the_exact_chance_is_that_of_a_simulation() -> None:
    rng = np.random.default_rng(7)
    cases, kept = 719, 0.985
    lost, gained = 0.005 + 0.98 * (1 - kept), 0.005
    drawn = rng.multinomial(cases, [lost, gained, 1 - lost - gained], 1_500)
    passed = np.mean([passes(int(row[0]), int(row[1]), cases, 705) for row in drawn])
    assert passed == pytest.approx(chance_of_pass(cases, kept), abs=0.03)


def test_other_rules_would_err_as_the_page_says() -> None:
    rng = np.random.default_rng(8)
    for cases, by_value in ((719, 0.07), (200, 0.15)):
        lost = 0.005 + 0.98 * 0.02
        drawn = rng.multinomial(cases, [lost, 0.005, 1 - lost - 0.005], 50_000)
        passed = np.mean(drawn[:, 0] - drawn[:, 1] <= 0.01 * round(0.98 * cases))
        assert passed == pytest.approx(by_value, abs=0.006)
    equal = rng.multinomial(719, [0.005, 0.005, 0.99], 2_000)
    lows = [share_interval(int(row[0]), int(row[1]), 719).low for row in equal]
    assert np.mean(np.array(lows) < -0.01 * 0.98) == pytest.approx(0.31, abs=0.04)


def test_without_a_difference_137_cases_are_enough() -> None:
    assert not passes(0, 0, 136, 136)
    assert passes(0, 0, 137, 137)
