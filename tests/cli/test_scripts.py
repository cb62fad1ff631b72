"""Sessions of an operator as text: each command with its output and exit code."""

from pathlib import Path

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.operator import Models
from support.canned_hub import CannedHub
from support.command_line import CommandLine, play
from support.golden import hold

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("file", SCRIPTS, ids=[file.stem for file in SCRIPTS])
def test_a_script_goes_as_it_is_written(file: Path, fleet: CommandLine, canned: CannedHub) -> None:
    none = OperatorError("not_found", "There is no rollout 'ro-none'.", field="rollout")
    canned.put("GET", "/api/v1/rollouts/ro-none", none)
    no_release = OperatorError("not_found", "There is no release 9.", field="release")
    canned.put("POST", "/api/v1/rollouts", no_release)
    written = file.read_text()
    played = play(written, fleet)
    assert played.count("$ edgefleet ") == written.count("$ edgefleet ") > 5
    hold(file, played)


def test_a_changed_answer_breaks_a_script(fleet: CommandLine, canned: CannedHub) -> None:
    written = (Path(__file__).parent / "scripts" / "look.txt").read_text()
    canned.put("GET", "/api/v1/models", Models(models=()))
    assert play(written, fleet) != written
