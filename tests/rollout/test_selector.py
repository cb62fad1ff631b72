"""Kubernetes label selectors: matches, and the character at which an error is found."""

import random

import numpy as np
import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.rollout.fleet.answers import Answers
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.selector import parse
from edgefleet.rollout.limits import SELECTOR_CHARS, SELECTOR_REQUIREMENTS

LYON = {"site": "lyon", "tier": "gold"}
OSLO = {"site": "oslo", "canary": "", "example.com/line": "7"}


@pytest.mark.parametrize(
    ("text", "lyon", "oslo"),
    [
        ("", True, True),
        ("   ", True, True),
        ("site=lyon", True, False),
        ("site==lyon", True, False),
        ("site!=lyon", False, True),
        ("tier!=gold", False, True),  # also matches devices without the key
        ("site in (lyon,oslo)", True, True),
        ("site in ( oslo )", False, True),
        ("site notin (lyon)", False, True),
        ("tier notin (silver)", True, True),
        ("canary", False, True),
        ("!canary", True, False),
        ("canary=", False, True),
        ("canary=,site=oslo", False, True),
        ("example.com/line=7", False, True),
        (" site = lyon , tier = gold ", True, False),
        ("site=lyon,!tier", False, False),
        ("in in (x)", False, False),
        ("notin", False, False),
    ],
)
def test_a_selector_matches_as_in_kubernetes(text: str, lyon: bool, oslo: bool):
    selector = parse(text)
    assert (selector.matches(LYON), selector.matches(OSLO)) == (lyon, oslo)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=", "At character 1: expected a label key, found '='"),
        ("site=lyon,", "At character 11: expected a label key, found the end"),
        (",site", "At character 1: expected a label key, found ','"),
        ("site=lyon tier=gold", "At character 11: expected ',', found 'tier'"),
        ("site in lyon", "At character 9: expected '(', found 'lyon'"),
        ("site in ()", "At character 10: expected a label value, found ')'"),
        ("site in (lyon", "At character 14: expected ',', found the end"),
        ("site in (lyon,)", "At character 15: expected a label value, found ')'"),
        ("site notin", "At character 11: expected '(', found the end"),
        ("site = = lyon", "At character 8: expected a label value, found '='"),
        ("site > 3", "At character 6: expected a key, value or operator, found '>'"),
        ("!", "At character 2: expected a label key, found the end"),
        ("!site=lyon", "At character 6: expected ',', found '='"),
        ("-site", "At character 1: expected a label key, found '-site'"),
        ("site=a/b", "At character 6: expected a label value, found 'a/b'"),
        ("a/b/c", "At character 1: expected a label key, found 'a/b/c'"),
        ("site(lyon)", "At character 5: expected an operator"),
        (f"site={'x' * 64}", "At character 6: expected a label value"),
        (f"{'x' * 64}", "At character 1: expected a label key"),
    ],
)
def test_a_refusal_names_the_character(text: str, message: str):
    with pytest.raises(OperatorError) as caught:
        parse(text)
    assert caught.value.code == "selector_invalid"
    assert caught.value.field == "selector"
    assert message in caught.value.message


@pytest.mark.parametrize("text", ["a" * (SELECTOR_CHARS + 1), "a," * SELECTOR_REQUIREMENTS + "a"])
def test_a_selector_is_bounded(text: str):
    with pytest.raises(OperatorError, match="at most"):
        parse(text)


def test_a_fleet_selects_as_the_label_sets_do():
    chance = random.Random(7)
    fleet = Fleet(listening_since=0.0, offline_after_s=90.0)
    texts = (
        "", "a=1", "a!=1", "a in (1,2)", "a notin (1,3)", "b", "!b", "b=", "a=1,!c", "c=x1,a!=2",
        "d=nosuch", "d", "a=1,b=2,c=x0,!d",
    )  # fmt: skip
    for row in range(60):
        labels = {
            key: "".join((chance.choice(("x", "")), str(chance.randrange(3)))) if key != "b" else ""
            for key in chance.sample("abc", chance.randrange(4))
        }
        fleet.add(f"d{row}", "generic_x86", labels)
        if row == 30:
            fleet.remove(3)
        selector = parse(chance.choice(texts))
        expected = [
            not fleet.is_removed(one) and selector.matches(fleet.labels(one))
            for one in range(row + 1)
        ]
        assert fleet.selected(selector).tolist() == expected, selector
    assert any(fleet.selected(parse("a=1")))


def test_answers_for_many_numbers_are_those_for_each():
    asked: list[int] = []
    count = 10

    def ask(number: int) -> int:
        asked.append(number)
        return number % 3 == 0

    answers = Answers(ask, lambda: count, lambda: np.arange(count) % 3 == 0)
    assert answers[9]
    assert asked == list(range(10))
    count = 5000
    assert answers[4998]
    assert not answers[4999]
    assert len(asked) == 10  # the rest at once
    assert answers.all().tolist() == [number % 3 == 0 for number in range(count)]
