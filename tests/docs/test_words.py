"""The lint for plain words finds both kinds of fault."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHO, WHAT = "Who", "What"  # apart from the sentences, as the lint reads this file too
WORDS = runpy.run_path(str(ROOT / "docs" / "words.py"))


def words(source: str) -> list[str]:
    return [found.word for found in WORDS["in_python"](source, file="a.py", names=True)]


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ('"""Who does not go back stays behind."""', "Who"),
        (f'"""A device returns. {WHAT} it runs is counted."""', "What"),
        ("x = 1  # that it is gone is not stored", "That"),
        ('def f(): raise ValueError("Nobody may start now.")', "Nobody"),
        ("def take(size: int) -> None: ...", "take"),
        ("def f(said: str) -> None: ...", "said"),
        ("class A:\n    held_back: int", "held_back"),
        ("def give_leave() -> None: ...", "give_leave"),
    ],
)
def test_a_planted_fault_is_found(source: str, word: str):
    assert words(source) == [word]


@pytest.mark.parametrize(
    "source",
    [
        '"""What does the device run?"""',
        '"""The release that a device runs. It returns what it measured."""',
        "def take_up_is_a_name_of_its_own() -> None: ...".replace("take_up", "uptake"),
        "last_seen: float = 0.0",
        'x = "whatever"',
    ],
)
def test_plain_words_are_let_pass(source: str):
    assert words(source) == []


def test_a_page_is_read_without_its_code():
    page = f"# Title\n\n```\n{WHAT} a program prints.\n```\n\n- {WHO} waits is served.\n"
    (found,) = WORDS["in_prose"](WORDS["_FENCE"].sub("", page), file="a.md")
    assert found.word == "Who"


def test_the_lists_are_short_and_reasoned():
    lists = WORDS["SENTENCE_STARTS"] | WORDS["API_VERBS"]
    assert len(lists) <= 30
    assert all(lists.values())
