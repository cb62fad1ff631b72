"""A device with several models, which speaks protocol 3 to a hub in memory."""

from msgspec.structs import replace

from edgefleet.protocol.device import (
    CheckIn,
    ModelReport,
    Offer,
    Outcome,
    OutcomeKind,
    Phase,
    Telemetry,
    digest,
)
from edgefleet.protocol.rollout import RolloutSpec
from edgefleet.protocol.version import PROTOCOL
from edgefleet.rollout.checkin import Answered
from edgefleet.testing import MemoryHub
from support.plans import START, manifest, spec


def publish(hub: MemoryHub, model: str, *releases: str) -> None:
    """Publish releases of any model."""
    for release in releases:
        made = replace(manifest(release), model=model)
        hub.add_release(made, f"{abs(hash((model, release))):064x}"[-64:])


def of(model: str, release: str, *percents: float, **knobs: object) -> RolloutSpec:
    return replace(spec(release, *(percents or (100,))), model=model, **knobs)


class ManyModels:
    """The device in ``row``. It sends what changed, and the full list when the hub asks for it."""

    def __init__(self, hub: MemoryHub, row: int) -> None:
        self.hub = hub
        self.row = row
        self.models: dict[str, ModelReport] = {}
        self.answer = Answered()
        self.starts: dict[str, Outcome] = {}  # asked, and not acknowledged yet
        self.lists = 0  # full lists that were sent
        self.changed: dict[str, ModelReport] = {}
        self._full = False
        self._seq = 0

    def has(self, model: str, release: str | None, phase: Phase = Phase.IDLE) -> None:
        """Change one model."""
        report = ModelReport(model=model, release=release, phase=phase)
        self.models[model] = self.changed[model] = report

    def check_in(self, *outcomes: Outcome, telemetry: Telemetry | None = None) -> Answered:
        self._seq += 1
        reports = self.models if self._full else self.changed
        self.lists += self._full
        answer = self.hub.check_in(
            self.row,
            CheckIn(
                protocol=PROTOCOL,
                seq=self._seq,
                digest=digest(self.models.values()),
                models=tuple(reports.values()),
                full=self._full,
                outcomes=outcomes,
                telemetry=telemetry,
            ),
        )
        assert isinstance(answer, Answered)
        self.changed = {}
        self._full = answer.wants_models
        self.answer = answer
        return answer

    def restored(self, seq: int) -> None:
        """Go on with another sequence number, as after a replay."""
        self._seq = seq

    def outcome(self, offer: Offer, kind: OutcomeKind) -> Outcome:
        return Outcome(
            id=f"{offer.rollout}/{self.row}/{kind}", rollout=offer.rollout, release=offer.release,
            kind=kind, at=START,
        )  # fmt: skip

    def stage(self, offer: Offer) -> Outcome:
        """Download and prove at once. Returns the start to be asked."""
        before = self.models.get(offer.model)
        self.has(offer.model, before and before.release, Phase.STAGED)
        return self.outcome(offer, OutcomeKind.TRIAL_STARTED)

    def try_it(self, offer: Offer) -> None:
        """The start was acknowledged: the release is active and in trial."""
        self.has(offer.model, offer.release, Phase.TRIAL)

    def confirm(self, offer: Offer) -> Answered:
        self.has(offer.model, offer.release)
        return self.check_in(self.outcome(offer, OutcomeKind.CONFIRMED))
