"""TAB offers verbs, options and live names, and loads neither a verb nor click."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from edgefleet.cli import reference
from edgefleet.cli.completion import TABLE, Offer, complete, main, read_words
from edgefleet.protocol.operator import Names
from support.canned_hub import TOKEN, CannedHub, canned_hub

NO_HUB: Mapping[str, str] = {"EDGEFLEET_HUB": "http://127.0.0.1:1", "EDGEFLEET_TOKEN": "t"}


def offered(line: str, environ: Mapping[str, str] = NO_HUB) -> list[str]:
    *words, incomplete = line.split(" ")
    return [one.value for one in complete(words[1:], incomplete, environ)]


def test_nouns_verbs_options_and_choices_come_from_tables() -> None:
    assert offered("edgefleet d") == ["demo", "device", "doctor"]
    assert {"plan", "pause"} <= set(offered("edgefleet rollout p"))
    assert "history" in offered("edgefleet device ")
    assert offered("edgefleet rollout plan --alp") == ["--alpha"]
    assert offered("edgefleet rollout plan --model m --rollback ") == ["part", "all"]
    assert offered("edgefleet no such ") == []
    assert offered("edgefleet audit extra ") == []
    assert list(complete(["rollout", "plan", "--file"], "x", NO_HUB)) == [Offer("x", kind="file")]


@pytest.mark.parametrize(
    ("line", "path", "names"),
    [
        ("edgefleet device show cam", "devices", ("cam-1", "cam-2")),
        ("edgefleet device why --json cam", "devices", ("cam-1",)),
        ("edgefleet rollout pause --note ready ", "rollouts", ("ro-1",)),
        ("edgefleet model show dig", "models", ("digits",)),
        ("edgefleet model show digits ", "releases", ("2", "1")),
        ("edgefleet rollout plan --model digits --release ", "releases", ("2", "1")),
    ],
)
def test_names_come_from_the_hub(line: str, path: str, names: tuple[str, ...]) -> None:
    with canned_hub() as hub:
        hub.put("GET", f"/api/v1/names/{path}", Names(names=names))
        environ = {"EDGEFLEET_HUB": hub.url, "EDGEFLEET_TOKEN": TOKEN}
        assert offered(line, environ) == list(names)
        noun_verb, rest = line.split(" ")[:3], line.split(" ")[3:]
        named = [*noun_verb, "--hub", hub.url, "--token", TOKEN, *rest]
        assert offered(" ".join(named)) == list(names)


def test_a_hub_is_found_by_its_data_folder_and_by_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with canned_hub() as hub:
        hub.put("GET", "/api/v1/names/devices", Names(names=("cam-1",)))
        (tmp_path / "hub.json").write_text(f'{{"url": "{hub.url}"}}')
        (tmp_path / "operator.token").write_text(f"{TOKEN}\n")
        assert offered("edgefleet device show ", {"EDGEFLEET_DATA_DIR": str(tmp_path)}) == ["cam-1"]
        monkeypatch.chdir(tmp_path)
        Path("edgefleet.toml").write_text(f'hub = "{hub.url}"\ntoken = "{TOKEN}"\n')
        assert offered("edgefleet device show ", {"HOME": str(tmp_path)}) == ["cam-1"]


def test_no_hub_and_a_hub_that_does_not_answer_as_one_offer_nothing(canned: CannedHub) -> None:
    assert offered("edgefleet device show ") == []
    assert offered("edgefleet device show ", {"EDGEFLEET_HUB": "nonsense"}) == []
    environ = {"EDGEFLEET_HUB": canned.url, "EDGEFLEET_TOKEN": TOKEN}
    assert offered("edgefleet device show ", environ) == []  # 404: an older hub


@pytest.mark.parametrize(
    ("shell", "words", "at", "shown"),
    [
        ("bash", "edgefleet doc", "1", "plain,doctor\n"),
        ("zsh", "edgefleet doc", "1", "plain\ndoctor\nCheck this machine and the hub.\n"),
        ("fish", "edgefleet doc", "doc", "plain,doctor\tCheck this machine and the hub.\n"),
        ("bash", "edgefleet rollout plan --note 'half", "4", ""),
    ],
)
def test_each_shell_reads_its_own_lines(
    shell: str, words: str, at: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main({"_EDGEFLEET_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": at})
        == 0
    )
    assert capsys.readouterr().out == shown


def test_the_word_at_the_cursor_is_the_incomplete_one() -> None:
    assert read_words("bash", {"COMP_WORDS": "edgefleet device sh", "COMP_CWORD": "2"}) == (
        ["device"],
        "sh",
    )
    assert read_words("bash", {"COMP_WORDS": "edgefleet device ", "COMP_CWORD": "2"}) == (
        ["device"],
        "",
    )


def test_the_table_is_current() -> None:
    assert TABLE.read_text() == reference.completions(), (
        "run `python -m edgefleet.cli.reference`, which writes it"
    )


HEAVY = {"numpy", "onnx", "onnxruntime", "rich", "starlette", "uvloop", "sqlite3", "cryptography"}


def loaded_by(program: str) -> set[str]:
    """The modules that a program loads in an interpreter of its own."""
    shown = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print('\\n'.join(sys.modules))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return set(shown.split())


def test_completion_loads_neither_click_nor_messages() -> None:
    found = loaded_by(
        "from edgefleet.cli.completion import complete\n"
        "list(complete(['device', 'show'], 'c', {'EDGEFLEET_HUB': 'http://127.0.0.1:1'}))"
    )
    assert found & {*HEAVY, "click", "msgspec", "edgefleet.protocol.wire", "asyncio"} == set()


def test_a_help_page_loads_none_of_the_work_of_any_verb() -> None:
    found = loaded_by(
        "from edgefleet.cli.config_file import load\n"
        "from edgefleet.cli.tree import leaves\n"
        "[load(leaf) for path, leaf in leaves() if path[0] != 'agent']"
    )
    assert found & {*HEAVY, "typing_extensions"} == set()
    work = ("agent", "client", "hub", "optimize", "rollout", "serving", "sim", "web")
    prefixes = tuple(f"edgefleet.{part}." for part in work)
    assert sorted(name for name in found if name.startswith(prefixes)) == []
