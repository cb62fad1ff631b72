"""The table of mutants matches the sources: each names exactly one place, and changes it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_mutants", ROOT / "bench" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses need their module in sys.modules
    spec.loader.exec_module(module)
    return module


MUTANTS = table().MUTANTS


def test_there_are_enough_of_them_each_with_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 12


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_names_one_place_and_something_that_tries_it(mutant) -> None:
    source = (ROOT / "src" / "edgefleet" / mutant.file).read_text()
    assert source.count(mutant.old) == 1
    assert mutant.new != mutant.old
    assert mutant.trials
    for trial in mutant.trials:
        if trial.startswith("tests/"):
            assert (ROOT / trial.partition("::")[0]).exists(), trial
