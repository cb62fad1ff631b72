"""The spool of unacknowledged outcomes."""

from edgefleet.agent import limits
from edgefleet.agent.spool import acknowledge, outcome, push
from edgefleet.agent.state import Attempt
from edgefleet.protocol.device import Outcome, OutcomeKind


def attempt(number: int = 1, *, rollout: str = "ro-1", action: str = "install") -> Attempt:
    return Attempt(
        number=number,
        rollout=rollout,
        action=action,  # type: ignore[arg-type] - one of its two words
        model="digits",
        release="2",
        manifest_sha256="0" * 64,
        confirm_after_s=1.0,
        max_attempts=2,
        slot="b",
        leaving="1",
    )


def said(number: int, kind: OutcomeKind) -> Outcome:
    return outcome(attempt(number), kind, at=0.0)


def test_the_same_outcome_made_again_after_a_crash_has_the_same_id() -> None:
    first = outcome(attempt(), OutcomeKind.CONFIRMED, at=1.0)
    again = outcome(attempt(), OutcomeKind.CONFIRMED, at=2.0)
    assert first.id == again.id == "ro-1/1/confirmed"
    assert push(push((), first), again) == (first,)


def test_ids_of_long_rollouts_still_fit_and_still_differ() -> None:
    ids = {
        outcome(attempt(number, rollout="r" * 64), kind, at=0.0).id
        for number in (1, 2)
        for kind in OutcomeKind
    }
    assert len(ids) == 2 * len(OutcomeKind)
    assert max(map(len, ids)) <= 64


def test_a_full_spool_keeps_how_attempts_ended() -> None:
    spool: tuple[Outcome, ...] = ()
    for number in range(limits.SPOOL_OUTCOMES):
        spool = push(spool, said(number, OutcomeKind.TRIAL_STARTED))
        spool = push(spool, said(number, OutcomeKind.TRIAL_FAILED))
    assert [one.kind for one in spool] == [OutcomeKind.TRIAL_FAILED] * limits.SPOOL_OUTCOMES
    spool = push(spool, said(1000, OutcomeKind.CONFIRMED))
    assert len(spool) == limits.SPOOL_OUTCOMES
    assert (spool[0].id, spool[-1].id) == ("ro-1/1/trial_failed", "ro-1/1000/confirmed")


def test_only_what_the_hub_names_is_forgotten() -> None:
    spool = push(push((), said(1, OutcomeKind.REFUSED)), said(2, OutcomeKind.REFUSED))
    assert acknowledge(spool, {"ro-1/1/refused", "ro-9/1/refused"}) == spool[1:]


def test_going_back_is_told_about_the_release_that_was_left() -> None:
    back = outcome(attempt(action="revert"), OutcomeKind.REVERTED, at=0.0)
    assert back.release == "1"
    refused = outcome(attempt(action="revert"), OutcomeKind.REFUSED, at=0.0)
    assert refused.release == "2", "the release of the failed revert"


def test_details_are_cut_to_what_the_wire_takes() -> None:
    long = outcome(attempt(), OutcomeKind.REFUSED, at=0.0, reason="r" * 99, detail="d" * 999)
    assert (len(long.reason), len(long.detail)) == (64, 500)
