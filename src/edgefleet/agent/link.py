"""The device's requests to its hub: enrolment once, then check-ins."""

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import msgspec

from edgefleet.agent import limits
from edgefleet.agent.event import CheckInAnswered, CheckInFailed
from edgefleet.agent.reenrol import UNKNOWN, reenrol
from edgefleet.base.entropy import Entropy
from edgefleet.base.errors import DeviceError, EdgefleetError, NetworkError, OperatorError
from edgefleet.base.network import Answer, Link
from edgefleet.base.storage import Storage
from edgefleet.protocol.device import (
    CheckIn,
    CheckInAnswer,
    Endpoints,
    EnrolAnswer,
    EnrolRequest,
    Facts,
)
from edgefleet.protocol.version import PROTOCOL
from edgefleet.protocol.wire import Problem, Wire, decode, encode, error_from_answer

CREDENTIAL: Final = "credential.json"
ENROL_PATH: Final = "/device/v1/enrol"
ENDPOINTS_PATH: Final = "/device/v1/endpoints"
CHECKIN_PATH: Final = "/device/v1/checkin"
_JSON: Final = {"Content-Type": "application/json"}

OpenLink = Callable[[str], Link]
T = TypeVar("T")


class Credential(Wire, frozen=True, kw_only=True):
    """The identity of this device at its hub. The file is readable by its owner only."""

    hub: str
    device: str
    token: str
    checkin_url: str
    interval_s: float


def load_credential(storage: Storage, hub: str) -> Credential | None:
    """The stored credential for this hub. None if the device must enrol."""
    data = storage.read(CREDENTIAL)
    if data is None:
        return None
    try:
        credential = decode(data, Credential, code="internal")
    except EdgefleetError:
        return None
    return credential if credential.hub == hub else None


def enrol(
    link: Link,
    storage: Storage,
    *,
    hub: str,
    claim: str,
    name: str,
    facts: Facts,
    labels: Mapping[str, str],
) -> Credential:
    """Exchange the claim for a credential and store it.

    Raises DeviceError (such as ``claim_used``), NetworkError.
    """
    request = EnrolRequest(
        protocol=PROTOCOL, claim=claim, name=name, facts=facts, labels=dict(labels)
    )
    answer = link.request("POST", ENROL_PATH, headers=_JSON, body=encode(request))
    enrolment = _read(answer, EnrolAnswer)
    credential = Credential(
        hub=hub,
        device=enrolment.device,
        token=enrolment.token,
        checkin_url=enrolment.checkin_url,
        interval_s=enrolment.interval_s,
    )
    storage.write(CREDENTIAL, encode(credential))
    return credential


class HubLink:
    """Sends check-ins over one kept-alive connection. Not thread-safe."""

    def __init__(
        self,
        credential: Credential,
        storage: Storage,
        open_link: OpenLink,
        entropy: Entropy,
        facts: Facts | None = None,
    ) -> None:
        """With ``facts`` the device may enrol again at a hub that lost its record of it."""
        self._facts = facts
        self.run = int.from_bytes(entropy.token(4), "big") or 1  # 0: none
        self.credential = credential
        self._storage = storage
        self._open_link = open_link
        self._entropy = entropy
        self._link: Link | None = None

    def headers(self) -> Mapping[str, str]:
        """The headers that authenticate the device."""
        return {"Authorization": f"Bearer {self.credential.token}"}

    def check_in(self, check_in: CheckIn) -> CheckInAnswered | CheckInFailed:
        """Send a check-in. If that fails, ask the hub for its current check-in address."""
        try:
            answer = self._post(check_in)
        except (NetworkError, OperatorError) as error:
            self.close()
            self._renew_checkin_url()
            return self._failed(check_in, error)
        draw = self._entropy.uniform()
        try:
            parsed = _read(answer, CheckInAnswer)
        except EdgefleetError as error:
            if error.code == UNKNOWN and self._facts is not None:
                self._enrol_again(self._facts)
            return self._failed(check_in, error, next_seq=_next_seq(answer.body))
        return CheckInAnswered(seq=check_in.seq, answer=parsed, draw=draw)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _post(self, check_in: CheckIn) -> Answer:
        if self._link is None:
            self._link = self._open_link(_over_http(self.credential.checkin_url))
        return self._link.request(
            "POST",
            CHECKIN_PATH,
            headers={**_JSON, **self.headers()},
            body=encode(msgspec.structs.replace(check_in, run=self.run)),
            timeout_s=limits.REQUEST_S,
        )

    def _failed(
        self, check_in: CheckIn, error: EdgefleetError, next_seq: int | None = None
    ) -> CheckInFailed:
        return CheckInFailed(
            seq=check_in.seq, code=error.code, draw=self._entropy.uniform(), next_seq=next_seq
        )

    def _enrol_again(self, facts: Facts) -> None:
        """Ask for a new credential. The next check-in uses it."""
        found = reenrol(self._open_link(self.credential.hub), self.credential.token, facts)
        if found is not None:
            self.close()
            self._store(
                msgspec.structs.replace(
                    self.credential, token=found.token, checkin_url=found.checkin_url
                )
            )

    def _store(self, credential: Credential) -> None:
        self.credential = credential
        try:
            self._storage.write(CREDENTIAL, encode(credential))
        except DeviceError:
            return  # disk full: it is asked for again after a restart

    def _renew_checkin_url(self) -> None:
        """Ask the hub for its check-in address, which may change with a restart."""
        link = self._open_link(self.credential.hub)
        try:
            answer = link.request("GET", ENDPOINTS_PATH, headers=self.headers())
            url = _read(answer, Endpoints).checkin_url
        except EdgefleetError:
            return  # keep the known address; the failed check-in is reported
        finally:
            link.close()
        if url != self.credential.checkin_url:
            self._store(msgspec.structs.replace(self.credential, checkin_url=url))


def _over_http(url: str) -> str:
    """Return ``url`` if it is HTTP and not a local socket. Raises OperatorError."""
    if not url.startswith(("http://", "https://")):
        raise OperatorError(
            "setting_invalid",
            f"The hub gives {url[:200]!r} for check-ins, which is not an HTTP address.",
        )
    return url


def _read(answer: Answer, kind: type[T]) -> T:
    if answer.status != 200:
        raise error_from_answer(answer.status, answer.body)
    return decode(answer.body, kind, code="answer_malformed")


def _next_seq(body: bytes) -> int | None:
    try:
        return decode(body, Problem).next_seq
    except EdgefleetError:
        return None
