"""The reasons that devices gave for failures and refusals in one rollout, with their words."""

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.reasons import reason_text
from edgefleet.protocol.wire import Wire
from edgefleet.rollout.limits import DETAILS_PER_ROLLOUT, DETAILS_SHOWN, REASONS_PER_ROLLOUT

WITH_REASON: Final = frozenset({OutcomeKind.REFUSED, OutcomeKind.TRIAL_FAILED})


def has_words(outcome: Outcome) -> bool:
    """Whether a report has a reason that is kept: of a failure, or of a start after a shadow."""
    if outcome.kind is OutcomeKind.TRIAL_STARTED:
        return bool(outcome.reason)
    return outcome.kind in WITH_REASON


class _Reason(NamedTuple):
    """The end of an attempt, as the device reported it."""

    attempt: int
    id: str
    code: str
    detail: str


class ReasonsPage(Wire, frozen=True, kw_only=True):
    """All reasons of one rollout, to store."""

    reasons: tuple[tuple[int, OutcomeKind, int, str, str, str], ...] = ()  # row, kind, ``_Reason``
    examples: dict[str, tuple[bool, int, str]] = msgspec.field(default_factory=dict)
    shadows: dict[int, str] = msgspec.field(default_factory=dict)


class Reasons:
    """One reason per device and kind of outcome. The counts do not depend on the order."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}  # all reasons that count now
        self._of: dict[tuple[int, OutcomeKind], _Reason] = {}  # see ``add``
        self._texts: dict[str, str] = {}  # the details that are kept, each once
        self._examples: dict[str, tuple[bool, int, str]] = {}  # see ``examples``
        self.shadows: dict[int, str] = {}  # by device: what its shadow phase found

    def add(self, row: int, outcome: Outcome) -> None:
        """Count the reason of the device's first attempt that ended in this way, and no other.

        The first attempt is that with the lowest number, in whatever order the reports arrive. A
        start is not counted: what its shadow phase found is kept in ``shadows``.
        """
        if outcome.kind is OutcomeKind.TRIAL_STARTED:
            self.shadows[row] = self._kept(outcome.detail) or f"{reason_text(outcome.reason)}."
            return
        code = outcome.reason or outcome.kind.value
        known = self._of.get((row, outcome.kind))
        if known is not None:
            if (known.attempt, known.id) <= (outcome.attempt, outcome.id):
                return
            self._counts[known.code] -= 1
            if not self._counts[known.code]:
                del self._counts[known.code]
        detail = self._kept(outcome.detail)
        self._of[row, outcome.kind] = _Reason(outcome.attempt, outcome.id, code, detail)
        self._counts[code] = self._counts.get(code, 0) + 1
        example = (not detail, row, detail)
        self._examples[code] = min(self._examples.get(code, example), example)

    def page(self) -> ReasonsPage:
        """The reasons as a page, for ``load``."""
        return ReasonsPage(
            reasons=tuple(
                (row, kind, why.attempt, why.id, why.code, why.detail)
                for (row, kind), why in self._of.items()
            ),
            examples=dict(self._examples),
            shadows=dict(self.shadows),
        )

    def load(self, page: ReasonsPage) -> None:
        """Replace all reasons by those of a page."""
        self._of = {
            (row, kind): _Reason(attempt, id_, code, detail)
            for row, kind, attempt, id_, code, detail in page.reasons
        }
        self._counts = dict(Counter(reason.code for reason in self._of.values()))
        texts = [reason.detail for reason in self._of.values()] + list(page.shadows.values())
        self._texts = {text: text for text in texts if text}
        self._examples = dict(page.examples)
        self.shadows = dict(page.shadows)

    def forget(self, row: int) -> None:
        """Drop the reasons of a device."""
        self.shadows.pop(row, None)
        for kind in WITH_REASON:
            known = self._of.pop((row, kind), None)
            if known is None:
                continue
            self._counts[known.code] -= 1
            if not self._counts[known.code]:
                del self._counts[known.code]
            if self._examples[known.code][1] == row:
                self._find_example(known.code)

    def _find_example(self, code: str) -> None:
        found = [
            (not reason.detail, row, reason.detail)
            for (row, _), reason in self._of.items()
            if reason.code == code
        ]
        if found:
            self._examples[code] = min(found)
        else:
            del self._examples[code]

    def counts(self, leaves_out: Callable[[int], bool] | None = None) -> dict[str, int]:
        """Reason of failure or refusal -> number of devices, most frequent first.

        The reasons after the first REASONS_PER_ROLLOUT count together, as "other". Devices for
        which ``leaves_out`` is true are left out.
        """
        counts = self._counts
        if leaves_out is not None:
            kept = (row for row in self._of if not leaves_out(row[0]))
            counts = Counter(self._of[row].code for row in kept)
        found = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        named, rest = dict(found[:REASONS_PER_ROLLOUT]), dict(found[REASONS_PER_ROLLOUT:])
        if rest:
            named["other"] = named.get("other", 0) + sum(rest.values())
        return named

    def detail(self, row: int) -> str:
        """The last reason of the device and its words for it. Empty if it gave no words."""
        found = [self._of[row, kind] for kind in WITH_REASON if (row, kind) in self._of]
        last = max(found, default=None)
        return f"{last.code}: {last.detail}" if last is not None and last.detail else ""

    def examples(self) -> dict[str, tuple[int, str]]:
        """The row of one device and its words, for each of the most frequent reasons.

        It is the device in the lowest row, of those that gave words if any did.
        """
        found = list(self.counts())[:DETAILS_SHOWN]
        return {code: self._examples[code][1:] for code in found if code in self._examples}

    def _kept(self, detail: str) -> str:
        """The detail, of which many devices share one. Empty after DETAILS_PER_ROLLOUT others."""
        if detail not in self._texts and len(self._texts) >= DETAILS_PER_ROLLOUT:
            return ""
        return self._texts.setdefault(detail, detail)
