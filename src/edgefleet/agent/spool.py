"""The spool: outcomes that the hub has not acknowledged.

An outcome's id is made from rollout, attempt and kind. It is an idempotency key: an outcome that is
sent again after a power loss has the same id.
"""

from collections.abc import Collection
from typing import Final

from edgefleet.agent import limits
from edgefleet.agent.state import Attempt
from edgefleet.base.ids import sha256_hex
from edgefleet.base.limits import DETAIL_CHARS
from edgefleet.base.texts import shortened
from edgefleet.protocol.device import Outcome, OutcomeKind, WrongBytes

ID_CHARS: Final = 64
REASON_CHARS: Final = 64
_PASSING: Final = frozenset({OutcomeKind.TRIAL_STARTED, OutcomeKind.DEFERRED})


def outcome(
    attempt: Attempt,
    kind: OutcomeKind,
    wrong_bytes: WrongBytes | None = None,
    *,
    at: float,
    reason: str = "",
    detail: str = "",
) -> Outcome:
    """An outcome of ``attempt``. Other ``wrong_bytes`` are another outcome of it.

    Its release is the offered one. A REVERTED outcome names the release that was rolled back.
    """
    release = attempt.release
    if kind is OutcomeKind.REVERTED and attempt.action == "revert" and attempt.leaving:
        release = attempt.leaving
    identity = f"{attempt.rollout}/{attempt.number}/{kind}"
    if wrong_bytes is not None:
        identity += f"/{wrong_bytes.found}"
    if len(identity) > ID_CHARS:
        identity = sha256_hex(identity.encode())
    return Outcome(
        id=identity,
        rollout=attempt.rollout,
        release=release,
        kind=kind,
        at=at,
        reason=reason[:REASON_CHARS],
        detail=shortened(detail, DETAIL_CHARS),
        attempt=attempt.number,
        wrong_bytes=wrong_bytes,
    )


def push(spool: tuple[Outcome, ...], new: Outcome) -> tuple[Outcome, ...]:
    """``spool`` with ``new`` at its end, if it is not in it.

    A full spool first drops outcomes that a later one supersedes (trial started, deferred), oldest
    first. Then it drops the oldest final outcomes.
    """
    if any(waiting.id == new.id for waiting in spool):
        return spool
    kept = [*spool, new]
    while len(kept) > limits.SPOOL_OUTCOMES:
        passing = (place for place, waiting in enumerate(kept) if waiting.kind in _PASSING)
        del kept[next(passing, 0)]
    return tuple(kept)


def acknowledge(spool: tuple[Outcome, ...], acked: Collection[str]) -> tuple[Outcome, ...]:
    """``spool`` without the acknowledged outcomes."""
    return tuple(waiting for waiting in spool if waiting.id not in acked)
