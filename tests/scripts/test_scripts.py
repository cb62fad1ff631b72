"""Sessions with the engine as text. ``EDGEFLEET_REWRITE=1`` rewrites the answers.

With ``-m "long or not long"`` it rewrites those of slow sessions, too.
"""

from pathlib import Path

import pytest

from edgefleet.rollout.fleet import cut
from support.engine_script import commands, play
from support.golden import hold

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))
SLOW = {"baseline", "cost", "gate", "history", "labels", "quality", "silence"}
CASES = [
    pytest.param(file, id=file.stem, marks=[pytest.mark.long] if file.stem in SLOW else [])
    for file in SCRIPTS
]


@pytest.mark.parametrize("file", CASES)
def test_a_session_goes_as_it_is_written(file: Path) -> None:
    written = file.read_text()
    played = play(written)
    assert commands(played) == commands(written)
    hold(file, played)


def test_a_cut_that_is_off_by_one_breaks_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    written = (Path(__file__).parent / "good.txt").read_text()
    exact = cut.wanted
    monkeypatch.setattr(cut, "wanted", lambda percent, population: exact(percent, population) + 1)
    assert play(written) != written
