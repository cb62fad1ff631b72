"""The lists that make a test fast name each directory once, and only modules that exist."""

from pathlib import Path

from conftest import FAST, NOT_FAST, WHOLE

TESTS = Path(__file__).parents[1]


def test_each_directory_of_tests_is_fast_or_not() -> None:
    found = {path.parent.relative_to(TESTS).parts[0] for path in TESTS.glob("*/**/test_*.py")}
    assert found == FAST | WHOLE
    assert not FAST & WHOLE


def test_each_module_that_is_not_fast_exists_in_a_fast_directory() -> None:
    assert [name for name in NOT_FAST if not (TESTS / name).exists()] == []
    assert {name.partition("/")[0] for name in NOT_FAST} <= FAST
