"""A small hub over real HTTP for agent tests: one offer, counters, and fault injection."""

import contextlib
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import msgspec

from edgefleet.base.errors import DeviceError
from edgefleet.protocol.device import (
    CheckIn,
    CheckInAnswer,
    Endpoints,
    EnrolAnswer,
    EnrolRequest,
    ModelReport,
    Offer,
    Outcome,
    OutcomeKind,
    Phase,
    digest,
)
from edgefleet.protocol.release import Envelope
from edgefleet.protocol.wire import decode, encode, problem
from edgefleet.security.signing import manifest_digest

TOKEN = "efd1.0.device.tag"
_BAD = {OutcomeKind.REFUSED, OutcomeKind.TRIAL_FAILED, OutcomeKind.REVERTED}


class FakeHub:
    """The hub's state and its injected faults. Fields may be set while it runs."""

    def __init__(self) -> None:
        self.url = ""
        self.token = TOKEN  # of its one device
        self.claims = {"claim-1"}
        self.interval_s = 0.1
        self.offers: dict[str, Offer] = {}  # by model, of the oldest rollout first
        self.reports: dict[str, ModelReport] = {}  # the models on the device, as it reported them
        self.wanted: list[str] = []  # the model lists that this hub has asked for
        self.admits_all = False  # a faulty hub: it admits more than one start at once
        self.manifests: dict[str, bytes] = {}
        self.artifacts: dict[str, bytes] = {}
        self.offline = False
        self.failing = False  # 500 without a problem
        self.cut_after: int | None = None  # bytes of the next artifact answer, then the line breaks
        self.slow: threading.Event | None = None  # artifacts stop half way until it is set
        self.refuses_starts = 0  # this many starts are not admitted, later ones are
        self.refused_starts = 0
        self.lose_with = ""  # check-ins with such an outcome are stored and not answered
        self.refuse_with = "credential_invalid"  # an unknown credential
        self.busy_s: int | None = None  # check-ins are refused with 503 and this Retry-After
        self.fail_with = ""  # check-ins with such an outcome are answered 500, and not stored
        self.enrolled: list[EnrolRequest] = []
        self.check_ins: list[CheckIn] = []
        self.outcomes: dict[str, Outcome] = {}
        self.repeated = 0
        self.served_bytes = 0
        self.ranges: list[str] = []
        self.last_seq = 0
        self.changed = threading.Condition()

    @property
    def offer(self) -> Offer | None:
        """The offer of model digits."""
        return self.offers.get("digits")

    @offer.setter
    def offer(self, offer: Offer | None) -> None:
        self.offers.pop("digits", None)
        if offer is not None:
            self.offers["digits"] = offer

    def runs(self, model: str = "digits") -> str | None:
        """The release that the device has reported."""
        report = self.reports.get(model)
        return report.release if report else None

    def pending(self) -> list[Offer]:
        """The offers that the next answer has."""
        return list(filter(self._is_offered, self.offers.values()))

    def publish(self, envelope: Envelope, files: dict[str, bytes]) -> str:
        digest = manifest_digest(envelope)
        self.manifests[digest] = encode(envelope)
        self.artifacts |= files
        return digest

    def wait(self, what: Any, timeout_s: float = 60.0) -> None:
        """Wait until ``what(self)`` is true. Each check-in evaluates it again."""
        with self.changed:
            held = self.changed.wait_for(lambda: what(self), timeout_s)
        assert held, f"not within {timeout_s} s; outcomes: {self.kinds()}"

    def kinds(self) -> list[tuple[str, str, str]]:
        """(release, kind, reason) of each outcome, in the order of arrival."""
        return [(one.release, str(one.kind), one.reason) for one in self.outcomes.values()]

    def take(self, said: CheckIn) -> CheckInAnswer:
        with self.changed:
            if said.seq <= self.last_seq:
                raise DeviceError("checkin_replayed", "seen")
            self.last_seq = said.seq
            self.check_ins.append(said)
            want = self._read_models(said)
            taken = [outcome for outcome in said.outcomes if self._admits(outcome)]
            for outcome in taken:
                self.repeated += outcome.id in self.outcomes
                self.outcomes[outcome.id] = outcome
            self.changed.notify_all()
            offers = () if want else tuple(self.pending())
            acked = tuple(outcome.id for outcome in taken)
            return CheckInAnswer(interval_s=self.interval_s, acked=acked, offers=offers, want=want)

    def _read_models(self, said: CheckIn) -> Literal["", "models"]:
        if said.full:
            self.reports.clear()
        self.reports |= {report.model: report for report in said.models}
        if digest(self.reports.values()) == said.digest:
            return ""
        self.wanted.append("models")
        return "models"

    def _admits(self, said: Outcome) -> bool:
        """Admit a start unless another one is in trial: at most one in a check-in."""
        if said.kind is not OutcomeKind.TRIAL_STARTED or said.id in self.outcomes:
            return True
        if self._in_trial() - {said.rollout} and not self.admits_all:
            return False
        self.refused_starts += 1
        if self.refused_starts <= self.refuses_starts:
            return False
        self.outcomes[said.id] = said
        return True

    def _in_trial(self) -> set[str]:
        """The rollouts whose last start has no end, on a device that is not idle again.

        A device that lost its state reports no end.
        """
        found: set[str] = set()
        for one in self.outcomes.values():
            if one.kind is OutcomeKind.TRIAL_STARTED:
                found.add(one.rollout)
            elif one.kind is not OutcomeKind.DEFERRED:
                found.discard(one.rollout)
        idle = {
            offer.rollout
            for offer in self.offers.values()
            if (report := self.reports.get(offer.model)) and report.phase is Phase.IDLE
        }
        return found - idle

    def _is_offered(self, offer: Offer) -> bool:
        if self.runs(offer.model) == offer.release:
            return False
        bad = any(
            one.rollout == offer.rollout and one.kind in _BAD for one in self.outcomes.values()
        )
        return not bad or offer.action == "revert"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_GET(self) -> None:
        if self._down():
            return
        name = self.path.rpartition("/")[2]
        if self.path == "/device/v1/endpoints":
            self._say(200, encode(Endpoints(checkin_url=self.hub.url)))
        elif self.headers["Authorization"] != f"Bearer {self.hub.token}":
            self._say(401, encode(problem(DeviceError("credential_invalid", "no"))))
        elif name in self.hub.manifests:
            self._say(200, self.hub.manifests[name])
        elif name in self.hub.artifacts:
            self._artifact(self.hub.artifacts[name])
        else:
            self._say(404, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._down():
            return
        try:
            if self.path == "/device/v1/enrol":
                self._enrol(decode(body, EnrolRequest))
            else:
                self._check_token()
                self._check_in(decode(body, CheckIn))
        except DeviceError as error:
            said = problem(error)
            self._say(
                error.status, encode(msgspec.structs.replace(said, next_seq=self.hub.last_seq + 1))
            )

    def _check_token(self) -> None:
        if self.headers["Authorization"] != f"Bearer {self.hub.token}":
            raise DeviceError(self.hub.refuse_with, "no")

    def _check_in(self, said: CheckIn) -> None:
        if self.hub.busy_s is not None:
            self._say(503, encode(problem(DeviceError("overloaded", "Busy."))), self.hub.busy_s)
            return
        kinds = {str(outcome.kind) for outcome in said.outcomes}
        if self.hub.fail_with in kinds:
            self._say(500, b"")
            return
        answer = self.hub.take(said)
        if self.hub.lose_with in kinds:
            self.close_connection = True
            return
        self._say(200, encode(answer))

    def _enrol(self, request: EnrolRequest) -> None:
        if request.claim not in self.hub.claims:
            raise DeviceError("claim_used", "This claim was used.")
        self.hub.claims.discard(request.claim)
        self.hub.enrolled.append(request)
        self._say(
            200,
            encode(
                EnrolAnswer(
                    device=request.name,
                    token=self.hub.token,
                    checkin_url=self.hub.url,
                    interval_s=self.hub.interval_s,
                )
            ),
        )

    def _artifact(self, data: bytes) -> None:
        asked = self.headers["Range"] or ""
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
        self.hub.ranges.append(asked)
        body = data[start:]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.hub.cut_after is not None:
            body, self.hub.cut_after = body[: self.hub.cut_after], None
            self.close_connection = True
        if self.hub.slow is not None:
            self._write(body[: len(body) // 2])
            self.hub.slow.wait(60)
            body = body[len(body) // 2 :]
        self._write(body)

    def _write(self, body: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)
            self.wfile.flush()
            self.hub.served_bytes += len(body)

    def _down(self) -> bool:
        if self.hub.offline:
            self.close_connection = True
            return True
        if self.hub.failing:
            self._say(500, b"")
            return True
        return False

    def _say(self, status: int, body: bytes, retry_after_s: int | None = None) -> None:
        self.send_response(status)
        if retry_after_s is not None:
            self.send_header("Retry-After", str(retry_after_s))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._write(body)

    def log_message(self, *_: object) -> None:
        return


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        return  # agents are killed during requests on purpose


@contextlib.contextmanager
def fake_hub() -> Generator[FakeHub]:
    """A running hub on a free loopback port."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        if hub.slow is not None:
            hub.slow.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
