"""A device without an agent: it sends the test's check-ins."""

from dataclasses import dataclass, field
from typing import Any

from edgefleet.base.errors import EdgefleetError, NetworkError
from edgefleet.base.network import Answer, HttpLink
from edgefleet.client.hub import HubClient
from edgefleet.protocol.device import (
    CheckIn,
    CheckInAnswer,
    EnrolAnswer,
    EnrolRequest,
    Facts,
    Offer,
    Outcome,
    OutcomeKind,
    Phase,
)
from edgefleet.protocol.operator import ClaimRequest
from edgefleet.protocol.version import ONE_MODEL
from edgefleet.protocol.wire import decode, encode, error_from_answer

CHECKIN = "/device/v1/checkin"
ENROL = "/device/v1/enrol"


def facts(profile: str = "generic_x86") -> Facts:
    return Facts(profile=profile, agent_version="0.1.0", runtimes=("onnx",))


def enrol(
    url: str, claim: str, name: str, *, labels: dict[str, str] | None = None, **more: Any
) -> EnrolAnswer:
    """Raises the typed error that the hub answers with."""
    request = EnrolRequest(
        protocol=ONE_MODEL,
        claim=claim,
        name=name,
        facts=more.get("facts", facts()),
        labels=labels or {},
    )
    link = HttpLink(url)
    try:
        answer = link.request("POST", ENROL, body=encode(request))
    finally:
        link.close()
    if answer.status != 200:
        raise error_from_answer(answer.status, answer.body)
    return decode(answer.body, EnrolAnswer)


@dataclass
class RawDevice:
    """The durable state of a device: credential, sequence numbers, unacknowledged outcomes."""

    name: str
    token: str
    checkin_url: str
    model: str | None = None
    release: str | None = None
    phase: Phase = Phase.IDLE
    seq: int = 0
    protocol: int = ONE_MODEL
    offer: Offer | None = None
    spool: list[Outcome] = field(default_factory=list)
    reported: list[Outcome] = field(default_factory=list)  # the device's own log, each outcome once
    link: HttpLink | None = None
    staged: tuple[Offer, Outcome] | None = None  # it waits for admission
    withdrawn: list[Outcome] = field(default_factory=list)  # starts that were never admitted
    trial: Offer | None = None
    before: str | None = None  # the release before the trial

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def report(self, kind: OutcomeKind, release: str, rollout: str, reason: str = "") -> None:
        """Queue an outcome. Every check-in sends it until it is acknowledged."""
        outcome = Outcome(
            id=f"{self.name}-{len(self.reported)}",
            rollout=rollout,
            release=release,
            kind=kind,
            at=1.0,
            reason=reason,
        )
        self.reported.append(outcome)
        self.spool.append(outcome)

    def said(self) -> CheckIn:
        """The next check-in."""
        self.seq += 1
        return CheckIn(
            protocol=self.protocol,
            seq=self.seq,
            phase=self.phase,
            model=self.model,
            release=self.release,
            outcomes=tuple(self.spool[:16]),
        )

    def post(self, body: bytes, headers: dict[str, str] | None = None) -> Answer:
        if self.link is None:
            self.link = HttpLink(self.checkin_url)
        return self.link.request(
            "POST", CHECKIN, headers=self.headers if headers is None else headers, body=body
        )

    def check_in(self) -> CheckInAnswer:
        """One check-in. Raises the typed error that the hub answers with."""
        answer = self.post(encode(self.said()))
        if answer.status != 200:
            raise error_from_answer(answer.status, answer.body)
        said = decode(answer.body, CheckInAnswer)
        self.spool = [outcome for outcome in self.spool if outcome.id not in said.acked]
        self.offer = said.offer
        return said

    def try_check_in(self) -> bool:
        """Check in. Returns False if the hub is unreachable: the device keeps its release."""
        try:
            self.check_in()
        except NetworkError:
            return False
        return True

    def close(self) -> None:
        if self.link is not None:
            self.link.close()

    def live(self, *, healthy: bool = True) -> None:
        """Take the next step of the offer, if there is one."""
        if self.trial is not None:
            self._end_trial(self.trial, healthy=healthy)
        elif self.staged is not None:
            self._wait_for_leave(*self.staged)
        elif self.offer is not None:
            self._begin(self.offer)

    def _begin(self, offer: Offer) -> None:
        if offer.action == "revert":
            before, self.release, self.model = self.release, offer.release, offer.model
            self.report(OutcomeKind.REVERTED, before or "", offer.rollout, "recalled")
        else:
            self.report(OutcomeKind.TRIAL_STARTED, offer.release, offer.rollout)
            self.phase, self.staged = Phase.STAGED, (offer, self.reported[-1])

    def _start(self, offer: Offer) -> None:
        self.before, self.release, self.model = self.release, offer.release, offer.model
        self.trial, self.phase = offer, Phase.TRIAL

    def _wait_for_leave(self, offer: Offer, start: Outcome) -> None:
        """Start once the start is acknowledged. Withdraw it if the offer is gone."""
        if start not in self.spool:
            self.staged = None
            self._start(offer)
        elif self.offer is None:
            self.spool.remove(start)
            self.staged, self.phase = None, Phase.IDLE
            self.withdrawn.append(start)

    def _end_trial(self, offer: Offer, *, healthy: bool) -> None:
        self.trial, self.phase = None, Phase.IDLE
        if healthy:
            self.report(OutcomeKind.CONFIRMED, offer.release, offer.rollout)
        else:
            self.release = self.before
            self.report(OutcomeKind.TRIAL_FAILED, offer.release, offer.rollout, "confidence_drop")


def enrolled(
    client: HubClient, url: str, count: int, *, labels: dict[str, str] | None = None
) -> list[RawDevice]:
    """New devices ``d000``, ``d001``..."""
    claims = client.claim(ClaimRequest(count=count, labels=labels or {})).claims
    devices = []
    for number, claim in enumerate(claims):
        answer = enrol(url, claim, f"d{number:03}")
        devices.append(RawDevice(answer.device, answer.token, answer.checkin_url))
    return devices


def code_of(error: BaseException) -> str:
    assert isinstance(error, EdgefleetError)
    return error.code
