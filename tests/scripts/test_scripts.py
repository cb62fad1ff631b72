"""Sessions with the engine as text. ``EDGEFLEET_REWRITE=1`` rewrites the answers."""

from pathlib import Path

import pytest

from edgefleet.rollout.fleet import cut
from support.engine_script import commands, play
from support.golden import hold

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("file", SCRIPTS, ids=[file.stem for file in SCRIPTS])
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
