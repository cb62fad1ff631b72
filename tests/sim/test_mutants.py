"""The table of mutants matches the sources, and the bugs of several models are really caught."""

import sys
from pathlib import Path

import pytest

from edgefleet.sim.virtual.checkers import ALL

ROOT = Path(__file__).parents[2]

sys.path.insert(0, str(ROOT / "bench"))  # its modules import each other by name
try:
    import mutants
    from mutant import Mutant
finally:
    sys.path.pop(0)

MUTANTS = {mutant.name: mutant for mutant in mutants.MUTANTS}

OF_SEVERAL_MODELS = {
    "two trials at once": "checker one_trial",
    "the disk is taken model by model": "tests/agent/test_arbiter.py",
    "two pointer files": "tests/agent/test_crash_models.py",
    "a stale table of release sets": "tests/rollout/test_device_models.py",
    "the memory of the process is held against one model": "tests/serving/test_worker.py",
    "any new pid is the trial's fault": "tests/agent/test_trial.py",
    "a neighbour's model is rolled back": "checker neighbour_untouched",
    "a failed trial takes a neighbour's release back": "checker neighbour_untouched",
    "a heartbeat that grew": "tests/protocol/test_wire.py",
    "a digest that is never compared": "tests/rollout/test_several_models.py",
}
"""The planted bugs that several models on one device need, and what catches each."""


def test_there_are_enough_of_them_each_with_a_name_of_its_own() -> None:
    assert len(MUTANTS) == len(mutants.MUTANTS) >= 12


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=list(MUTANTS))
def test_a_mutant_names_one_place_and_something_that_tries_it(mutant: Mutant) -> None:
    for file, old, new in mutant.changes:
        source = (ROOT / "src" / "edgefleet" / file).read_text()
        assert source.count(old) == 1, file
        assert new != old
    assert len(set(mutant.changes)) == len(mutant.changes)
    assert mutant.trials
    for trial in mutant.trials:
        path, _, test = trial.partition("::")
        if trial.startswith("tests/"):
            assert (ROOT / path).exists(), trial
            name = test.partition("[")[0]  # of a test with parameters
            assert not name or f"def {name}(" in (ROOT / path).read_text(), trial
    if mutant.checker:
        assert mutant.checker in {checker.name for checker in ALL}
        assert not any(trial.startswith("tests/") for trial in mutant.trials)


@pytest.mark.long
@pytest.mark.parametrize(("name", "by"), OF_SEVERAL_MODELS.items(), ids=list(OF_SEVERAL_MODELS))
def test_a_bug_of_several_models_is_caught_by_what_the_table_names(name: str, by: str) -> None:
    assert by in mutants.trial(MUTANTS[name])


def test_a_change_that_breaks_nothing_is_not_caught() -> None:
    harmless = Mutant(
        "a comment",
        "rollout/desired.py",
        "        newest_first = sorted(",
        "        # no bug\n        newest_first = sorted(",
        ("three_models/13", "tests/agent/test_trial.py"),
        checker="neighbour_untouched",
    )
    assert mutants.trial(harmless) == ""
