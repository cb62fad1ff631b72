"""A change of a rollout's state names a field that exists, with its type; a checker says so."""

from pathlib import Path
from typing import ClassVar, get_origin, get_type_hints

import pytest

from edgefleet.protocol.device import Offer
from edgefleet.protocol.rollout import Evidence, Judgement
from edgefleet.protocol.why import Wait
from edgefleet.rollout.lifecycle import typed_replace
from edgefleet.rollout.lifecycle.state import RolloutState, WaveState
from support.planted import refused_lines, wrong_lines

PLANTED = """\
from dataclasses import replace as replace_class

from edgefleet.protocol.device import Offer
from edgefleet.protocol.rollout import Evidence, Judgement
from edgefleet.protocol.why import Wait
from edgefleet.rollout.census import Census
from edgefleet.rollout.lifecycle.typed_replace import replace
from edgefleet.rollout.lifecycle.state import RolloutState, WaveState
from edgefleet.rollout.lifecycle.waves import replace_wave

def plant(
    state: RolloutState, wave: WaveState, evidence: Evidence, judgement: Judgement, offer: Offer,
    wait: Wait, census: Census,
) -> None:
    replace(state, revision=1, ended_at=None)
    replace_wave(state, judgement=judgement, closed_at=1.0)
    replace(wave, rows=1)
    replace(evidence, failed=1)
    replace(judgement, at=1.0)
    replace(offer, action="revert")
    replace(wait, text="")
    replace_class(census, evidence=evidence)
    replace(state, revison=1)  # wrong
    replace(state, revision="1")  # wrong
    replace_wave(state, closed=1.0)  # wrong
    replace_wave(state, closed_at="1")  # wrong
    replace(wave, row=1)  # wrong
    replace(wave, rows="1")  # wrong
    replace(evidence, fail=1)  # wrong
    replace(evidence, failed=None)  # wrong
    replace(judgement, when=1.0)  # wrong
    replace(judgement, at=None)  # wrong
    replace(offer, act="revert")  # wrong
    replace(offer, action="go")  # wrong
    replace(wait, txt="")  # wrong
    replace(wait, text=None)  # wrong
    replace_class(census, evidnce=evidence)  # wrong
    replace_class(census, evidence=None)  # wrong
"""


@pytest.mark.parametrize(
    ("named", "struct"),
    [
        (typed_replace.RolloutChanges, RolloutState),
        (typed_replace.WaveChanges, WaveState),
        (typed_replace.EvidenceChanges, Evidence),
        (typed_replace.JudgementChanges, Judgement),
        (typed_replace.OfferChanges, Offer),
        (typed_replace.WaitChanges, Wait),
    ],
)
def test_the_changes_are_the_fields_of_the_struct(named: type, struct: type) -> None:
    fields = {
        name: kind
        for name, kind in get_type_hints(struct).items()
        if get_origin(kind) is not ClassVar
    }
    assert get_type_hints(named) == fields


def test_a_planted_wrong_change_is_found(tmp_path: Path) -> None:
    found, printed = refused_lines(PLANTED, tmp_path)
    assert found == wrong_lines(PLANTED), printed
