"""The attempts of one device at releases, from its stored reports."""

from collections.abc import Mapping, Sequence

from edgefleet.hub.store.records import StoredOutcome
from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.operator import DeviceAttempt, DeviceHistory
from edgefleet.protocol.reasons import reason_text


def device_history(
    device: str, reports: Sequence[StoredOutcome], models: Mapping[str, str], *, most: int
) -> DeviceHistory:
    """The attempts of ``device``, newest first. ``reports`` are its own, newest first.

    Reports after the first ``most`` are left out. ``models`` has the model of each rollout.
    """
    found: dict[tuple[str, str, int], list[StoredOutcome]] = {}
    for report in reports[:most]:
        one = report.outcome
        found.setdefault((one.rollout, one.release, one.attempt), []).append(report)
    attempts = tuple(_attempt(mine[::-1], models) for mine in found.values())
    return DeviceHistory(device=device, attempts=attempts, is_cut=len(reports) > most)


def _attempt(reports: Sequence[StoredOutcome], models: Mapping[str, str]) -> DeviceAttempt:
    """The attempt that ``reports`` describe, of which the oldest is the first."""
    first, last = reports[0], reports[-1]
    outcome = last.outcome
    # A confirmation has no words: then those of the start say what its shadow phase found.
    words = next((one.outcome for one in reversed(reports) if one.outcome.reason), outcome)
    starts = [one.outcome.at for one in reports if one.outcome.kind is OutcomeKind.TRIAL_STARTED]
    has_ended = outcome.kind is not OutcomeKind.TRIAL_STARTED
    return DeviceAttempt(
        rollout=outcome.rollout,
        model=models.get(outcome.rollout, ""),
        release=outcome.release,
        attempt=outcome.attempt,
        kind=outcome.kind.value,
        reason=words.reason,
        cause=reason_text(words.reason) if words.reason else "",
        detail=words.detail,
        began_at=first.received_at,
        at=last.received_at,
        duration_s=max(0.0, outcome.at - starts[0]) if starts and has_ended else None,
    )
