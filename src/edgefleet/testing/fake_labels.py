"""The late labels of a fake device: a share of its answers gets one, some time after the answer."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from edgefleet.base.ids import device_hash, mix64
from edgefleet.protocol.labels import LabelReport, ModelLabels, ReleaseLabels
from edgefleet.testing.behaviour import Behaviour

_WHOLE: Final = float(1 << 64)


@dataclass(slots=True)
class _Counts:
    answers: float = 0.0
    labelled: int = 0
    correct: int = 0


@dataclass(slots=True)
class FakeLabels:
    """Which answers are correct is a function of device, release and number of the label."""

    device: str
    _waiting: deque[tuple[float, str, Behaviour, int]] = field(default_factory=deque)
    _counts: dict[str, _Counts] = field(default_factory=dict)

    def answered(self, now: float, release: str, behaviour: Behaviour, requests: int) -> None:
        """The release has answered ``requests``."""
        if behaviour.labelled:
            self._waiting.append((now + behaviour.labels_late_s, release, behaviour, requests))

    def report(self, now: float, model: str) -> LabelReport | None:
        """The counters of the labels until now. None without labels."""
        while self._waiting and self._waiting[0][0] <= now:
            _, release, behaviour, requests = self._waiting.popleft()
            self._label(release, behaviour, requests)
        found = tuple(
            ReleaseLabels(release=release, labelled=one.labelled, correct=one.correct)
            for release, one in self._counts.items()
            if one.labelled
        )
        models = (ModelLabels(model=model, releases=found[-4:]),)
        return LabelReport(epoch=1, models=models) if found else None

    def _label(self, release: str, behaviour: Behaviour, requests: int) -> None:
        counts = self._counts.setdefault(release, _Counts())
        counts.answers += requests * behaviour.labelled
        seed = device_hash(f"{self.device} {release}")
        while counts.labelled + 1 <= counts.answers:
            luck = mix64(seed + counts.labelled & (1 << 64) - 1) / _WHOLE
            counts.labelled += 1
            counts.correct += luck < behaviour.labelled_accuracy
