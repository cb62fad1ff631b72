"""The device's requests to its hub: enrolment, then check-ins."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import msgspec

from edgefleet.agent import limits
from edgefleet.agent.device_key import device_key
from edgefleet.agent.event import CheckInAnswered, CheckInFailed
from edgefleet.agent.log import LOGGER
from edgefleet.agent.own_files import OwnFile
from edgefleet.agent.reenrol import UNKNOWN, reenrol
from edgefleet.agent.transfer import JSON, check_type
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
CLAIM_HINT: Final = (
    "Put a claim of `edgefleet device claim` into a file, and give it with --claim-file."
)
_NEED_CLAIM: Final = ("credential_invalid", "device_removed")
_PASSING: Final = (429, 503)
_RETRY_AFTER_DIGITS: Final = 9
_JSON: Final = {"Content-Type": "application/json"}

OpenLink = Callable[[str], Link]
T = TypeVar("T")


class Credential(Wire, frozen=True, kw_only=True):
    """The identity of this device: its name and its secret. Only its owner may read the file.

    ``hub`` is the address that was last used. It is no part of the identity: a hub may move.
    """

    hub: str
    device: str
    token: str
    checkin_url: str
    interval_s: float


class Enrolment(Wire, frozen=True, kw_only=True):
    """The device's part of an enrolment. A device without a claim cannot enrol."""

    claim: str
    name: str
    facts: Facts
    labels: dict[str, str]


def load_credential(storage: Storage) -> Credential | None:
    """The stored credential, of either copy. None if the device must enrol."""
    file = OwnFile(storage, CREDENTIAL)
    for content, _ in file.contents():
        try:
            credential = decode(content, Credential, code="internal")
        except EdgefleetError:
            continue
        file.repair()
        return credential
    return None


def enrol(link: Link, storage: Storage, hub: str, enrolment: Enrolment, key: str) -> Credential:
    """Exchange the claim for a credential and store it, if the disk can be written.

    Safe to repeat with the same ``key``, see ``device_key``. Raises DeviceError (such as
    ``claim_used``), NetworkError.
    """
    request = EnrolRequest(
        protocol=PROTOCOL,
        claim=enrolment.claim,
        name=enrolment.name,
        facts=enrolment.facts,
        labels=enrolment.labels,
        key=key,
    )
    answer = link.request("POST", ENROL_PATH, headers=_JSON, body=encode(request))
    answered = _read(answer, EnrolAnswer)
    credential = Credential(
        hub=hub,
        device=answered.device,
        token=answered.token,
        checkin_url=answered.checkin_url,
        interval_s=answered.interval_s,
    )
    _store(storage, credential)
    return credential


class HubLink:
    """Enrols, and sends check-ins over one kept-alive connection. Not thread-safe.

    A device without a credential, or with one that the hub does not accept, enrols with its claim
    before a check-in. A failure is that of the check-in, so it is tried again after a pause. With
    ``must_enrol`` an error at the first enrolment is raised, but for one of the network: the device
    has no release to serve, and a person waits for the answer.
    """

    def __init__(
        self,
        hub: str,
        credential: Credential | None,
        enrolment: Enrolment,
        storage: Storage,
        open_link: OpenLink,
        *,
        entropy: Entropy,
        must_enrol: bool = False,
    ) -> None:
        self.run = int.from_bytes(entropy.token(4), "big") or 1  # 0: none
        self._run_is_known = False
        self.credential = credential
        self._hub = hub
        self._enrolment = enrolment
        self._storage = storage
        self._open_link = open_link
        self._entropy = entropy
        self._must_enrol = must_enrol
        self._link: Link | None = None
        self._has_moved = credential is not None and credential.hub != hub
        self._refused: EdgefleetError | None = None  # why the device could not enrol
        self._key = ""  # read or made when it is needed

    @property
    def waiting(self) -> str:
        """Why the device is not enrolled. Empty if it is, or has not tried."""
        return "" if self._refused is None else str(self._refused)

    def headers(self) -> Mapping[str, str]:
        """The headers that authenticate the device. Empty before its enrolment."""
        credential = self.credential
        return {} if credential is None else {"Authorization": f"Bearer {credential.token}"}

    def check_in(self, check_in: CheckIn) -> CheckInAnswered | CheckInFailed:
        """Send a check-in. If no answer of the hub comes, ask it for its check-in address."""
        try:
            credential = self._enrolled()
            answer = self._post(credential, check_in)
        except (DeviceError, NetworkError, OperatorError) as error:
            self.close()
            self._run_is_known = False
            self._renew_checkin_url()
            return self._failed(check_in, error)
        draw = self._entropy.uniform()
        try:
            parsed = _read(answer, CheckInAnswer)
        except EdgefleetError as error:
            self._run_is_known = False
            of_another = isinstance(error, NetworkError) or error.code in (UNKNOWN, *_NEED_CLAIM)
            moved = of_another and self._renew_checkin_url()
            if not moved and error.code in (UNKNOWN, *_NEED_CLAIM):
                self._enrol_again(credential, error.code)
            return self._failed(
                check_in,
                error,
                next_seq=_next_seq(answer.body),
                retry_after_s=_retry_after_s(answer),
            )
        self._run_is_known = True
        return CheckInAnswered(seq=check_in.seq, answer=parsed, draw=draw)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _enrolled(self) -> Credential:
        """The credential. Enrols a device that has none. Raises DeviceError, NetworkError."""
        if self.credential is None:
            try:
                self._enrol()
            except EdgefleetError as error:
                if self._must_enrol and not isinstance(error, NetworkError):
                    raise Unenrolled(error) from error
                self._note_refusal(error)
                raise
        elif self._has_moved:
            self._renew_checkin_url()
        assert self.credential is not None  # noqa: S101 - enrolled above
        return self.credential

    def _enrol(self) -> None:
        if not self._enrolment.claim:
            raise DeviceError(
                "claim_unknown",
                "The device is not enrolled and has no claim.",
                field="claim",
                hint=CLAIM_HINT,
            )
        with contextlib.closing(self._open_link(self._hub)) as link:
            self._key = self._key or device_key(self._storage, self._entropy)
            self.credential = enrol(link, self._storage, self._hub, self._enrolment, self._key)
        self._must_enrol = self._has_moved = False
        self._refused = None
        LOGGER.info("Enrolled as device %s.", self.credential.device)

    def _enrol_again(self, old: Credential, code: str) -> None:
        """Replace a credential that the hub does not accept. It stays until there is another one.

        A hub that made the credential and lost its record of the device takes it as a proof, once
        the operator allows that. Another hub, or one from which it was removed, needs a claim.
        """
        try:
            if code == UNKNOWN:
                with contextlib.closing(self._open_link(self._hub)) as link:
                    answered = reenrol(link, old.token, self._enrolment.facts)
                self._keep(old, token=answered.token, checkin_url=answered.checkin_url)
                self._refused = None
                LOGGER.info("Enrolled again as device %s.", old.device)
            else:
                self._enrol()
        except EdgefleetError as error:
            self._note_refusal(error)
        else:
            self.close()

    def _note_refusal(self, error: EdgefleetError) -> None:
        """Log why the device is not enrolled, once for each reason."""
        if self._refused is None or error.code != self._refused.code:
            LOGGER.warning("The device is not enrolled yet. The agent retries: %s", error)
        self._refused = error

    def _post(self, credential: Credential, check_in: CheckIn) -> Answer:
        """Send a check-in, with the number of this run unless the hub has answered the last one.

        If another agent checks in meanwhile, the hub refuses the next number of this one.
        """
        if self._link is None:
            self._link = self._open_link(_over_http(credential.checkin_url))
        return self._link.request(
            "POST",
            CHECKIN_PATH,
            headers={**_JSON, **self.headers()},
            body=encode(
                check_in if self._run_is_known else msgspec.structs.replace(check_in, run=self.run)
            ),
            timeout_s=limits.REQUEST_S,
        )

    def _failed(
        self,
        check_in: CheckIn,
        error: EdgefleetError,
        *,
        next_seq: int | None = None,
        retry_after_s: float = 0.0,
    ) -> CheckInFailed:
        return CheckInFailed(
            seq=check_in.seq,
            code=error.code,
            draw=self._entropy.uniform(),
            next_seq=next_seq,
            detail=error.message,
            retry_after_s=retry_after_s,
        )

    def _keep(self, old: Credential, **changes: str) -> None:
        """Use a credential with these changes, and store it."""
        new = msgspec.structs.replace(old, hub=self._hub, **changes)
        if new != old:
            self.credential = new
            _store(self._storage, new)

    def _renew_checkin_url(self) -> bool:
        """Ask the hub for its check-in address, which may change with a restart.

        Another server may have the known one by now. Returns whether there is a new address.
        """
        credential = self.credential
        if credential is None:
            return False
        with contextlib.closing(self._open_link(self._hub)) as link:
            try:
                answer = link.request("GET", ENDPOINTS_PATH, headers=self.headers())
                url = _read(answer, Endpoints).checkin_url
            except EdgefleetError:
                return False  # keep the known address; the failed check-in is reported
        self._has_moved = False
        self._keep(credential, checkin_url=url)
        if url == credential.checkin_url:
            return False
        self.close()
        return True


class Unenrolled(Exception):  # noqa: N818 - ends the agent of a new device
    """A new device cannot enrol. ``error`` says why."""

    def __init__(self, error: EdgefleetError) -> None:
        super().__init__(str(error))
        self.error = error


def _store(storage: Storage, credential: Credential) -> None:
    try:
        OwnFile(storage, CREDENTIAL).write(encode(credential))
    except DeviceError as error:  # the credential is used until the agent ends
        LOGGER.error("The credential is not stored: %s", error)


def _over_http(url: str) -> str:
    """Return ``url`` if it is HTTP and not a local socket. Raises OperatorError."""
    if not url.lower().startswith(("http://", "https://")):
        raise OperatorError(
            "setting_invalid",
            f"The hub gives {url[:200]!r} for check-ins, which is not an HTTP address.",
        )
    return url


def _read(answer: Answer, kind: type[T]) -> T:
    try:
        if answer.status != 200:
            raise error_from_answer(answer.status, answer.body)
        return decode(answer.body, kind, code="answer_malformed")
    except NetworkError:
        check_type(answer.headers, JSON)  # the type says what has answered in place of the hub
        raise


def _retry_after_s(answer: Answer) -> float:
    """The seconds in ``Retry-After`` of an answer that says try again later. 0 without it.

    A date there is ignored: the clock of a device may be wrong.
    """
    value = answer.headers.get("retry-after", "").strip()
    if answer.status not in _PASSING or not value.isascii() or not value.isdecimal():
        return 0.0
    return float(value[:_RETRY_AFTER_DIGITS])


def _next_seq(body: bytes) -> int | None:
    try:
        return decode(body, Problem).next_seq
    except EdgefleetError:
        return None
