"""The cache of builds and measurements: keys, whole entries, damage, and rivals."""

from pathlib import Path

import pytest

from edgefleet.optimize.cache import Cache, default_folder, key_of


def write(folder: Path, text: str = "made") -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text(text)


def fail(_: Path) -> None:
    raise AssertionError("the entry is there")


def test_a_key_depends_on_every_part() -> None:
    keys = {
        key_of("artifact", weights="a", steps=[1]),
        key_of("artifact", weights="b", steps=[1]),
        key_of("artifact", weights="a", steps=[2]),
        key_of("run", weights="a", steps=[1]),
        key_of("artifact", weights="a", steps=[1], more=None),
    }
    assert len(keys) == 5
    assert key_of("artifact", weights="a", steps=[1]) == key_of("artifact", steps=[1], weights="a")


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.find("ab12") is None
    made = cache.entry("ab12", write)
    assert cache.entry("ab12", fail) == made == Cache(tmp_path).find("ab12")
    assert (made / "inner" / "file").read_text() == "made"


@pytest.mark.parametrize("damage", ["changed", "missing", "more", "index"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    made = cache.entry("ab12", write)
    match damage:
        case "changed":
            (made / "inner" / "file").write_text("else")
        case "missing":
            (made / "inner" / "file").unlink()
        case "more":
            (made / "another").write_text("")
        case _:
            (made / "entry.json").write_text("{")
    assert cache.find("ab12") is None
    again = cache.entry("ab12", lambda folder: write(folder, "again"))
    assert (again / "inner" / "file").read_text() == "again"


def test_a_fill_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        write(folder)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        Cache(tmp_path).entry("ab12", broken)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_killed_fill_is_no_entry(tmp_path: Path) -> None:
    part = tmp_path / "ab" / "ab12-x.part"  # as a process leaves it that is killed
    part.mkdir(parents=True)
    write(part)
    made = Cache(tmp_path).entry("ab12", lambda folder: write(folder, "whole"))
    assert (made / "inner" / "file").read_text() == "whole"


def test_the_faster_of_two_processes_wins(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def slow(folder: Path) -> None:
        cache.entry("ab12", lambda other: write(other, "fast"))
        write(folder, "slow")

    assert (cache.entry("ab12", slow) / "inner" / "file").read_text() == "fast"
    assert [path.name for path in (tmp_path / "ab").iterdir()] == ["ab12"]


def test_the_folder_is_that_of_the_user() -> None:
    assert default_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/edgefleet/optimize")
    assert default_folder({}) == Path("~/.cache/edgefleet/optimize").expanduser()
