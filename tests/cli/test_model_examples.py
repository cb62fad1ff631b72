"""``edgefleet model examples`` writes release folders that can be published."""

from pathlib import Path

from edgefleet.cli.exits import Exit
from edgefleet.optimize.release_folder import build_release
from support.command_line import CommandLine


def test_the_folders_that_it_names_are_release_folders(
    edgefleet: CommandLine, tmp_path: Path
) -> None:
    said = edgefleet("model", "examples", str(tmp_path / "releases"), "--json")
    assert said.exit == Exit.DONE
    manifests = [
        build_release(Path(folder), created_at=0.0).manifest for folder in said.json["releases"]
    ]
    assert [(one.model, one.release) for one in manifests] == [
        *(("digits", release) for release in "1234"),
        ("parity", "1"),
    ]


def test_it_overwrites_no_model_and_writes_none_beside_it(
    edgefleet: CommandLine, tmp_path: Path
) -> None:
    mine = tmp_path / "parity" / "mine"
    mine.parent.mkdir()
    mine.write_text("keep")
    said = edgefleet("model", "examples", str(tmp_path), "--json")
    assert said.exit == Exit.USAGE
    assert str(mine.parent) in said.json["message"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
