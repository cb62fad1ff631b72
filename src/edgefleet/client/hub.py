"""The client of the hub's operator API: one typed method per endpoint.

Method, path and types come from the table in ``protocol.api``. Every method raises:

- the typed error of the hub's answer, with a ``Refusal`` as its cause, so that a caller can
  distinguish it from an error of the client itself;
- OperatorError ``name_invalid`` for an invalid name;
- NetworkError if the hub gave no valid answer.

Not thread-safe: one client uses one connection.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from edgefleet.base.errors import (
    EdgefleetError,
    NetworkError,
    OperatorError,
    PublisherError,
    error_from_code,
)
from edgefleet.base.ids import check_name
from edgefleet.base.network import Answer, HttpLink, Link
from edgefleet.client.hooks import HookCalls
from edgefleet.client.limits import (
    EVENTS_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
    TOKEN_CHARS,
    UPLOAD_CHUNK_BYTES,
    UPLOAD_TIMEOUT_S,
)
from edgefleet.client.people import PeopleCalls
from edgefleet.protocol import operator
from edgefleet.protocol.api import BY_NAME, Endpoint
from edgefleet.protocol.collection import Collect, Collected
from edgefleet.protocol.device_commands import (
    ClearCopy,
    DeviceFilter,
    LabelDevice,
    RemovedDevice,
    RemoveDevice,
    RenameDevice,
)
from edgefleet.protocol.device_figures import DeviceFigures
from edgefleet.protocol.field_figures import ModelField
from edgefleet.protocol.people import check_user_name
from edgefleet.protocol.release import Envelope
from edgefleet.protocol.restored import AcceptedRestored, AcceptRestored
from edgefleet.protocol.rollout import (
    ApproveRequest,
    Command,
    Freeze,
    RolloutSpec,
    RolloutView,
    Verb,
)
from edgefleet.protocol.why import WaitReport
from edgefleet.protocol.wire import Wire, decode, encode, error_from_answer

W = TypeVar("W", bound=Wire)
_TEXTS: Final = tuple(name for name in DeviceFilter.__struct_fields__ if name != "states")
Progress = Callable[[int], None]
"""Called with the number of bytes sent since the last call."""


class Refusal(Exception):  # noqa: N818 - the cause of an error
    """The hub answered with this HTTP status, which is not a success."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


class HubClient:
    """A client of one hub's operator API."""

    def __init__(self, url: str, token: str, *, link: Link | None = None) -> None:
        """Connects on first use. Raises OperatorError ``setting_invalid`` for a bad url or token.

        A path in ``url`` (a hub behind a proxy) is put before the path of every endpoint.
        """
        self.url = check_url(url)
        self._headers = {"Authorization": f"Bearer {check_token(token)}"} if token else {}
        parts = urlsplit(self.url)
        self._prefix = "" if parts.scheme == "unix" else parts.path.rstrip("/")
        self._link = link or HttpLink(self.url)
        self.people = PeopleCalls(self._ask)
        self.hooks = HookCalls(self._ask)

    def close(self) -> None:
        self._link.close()

    def page_url(self, path: str) -> str:
        """The address of ``path``, which the hub named, for a browser."""
        return f"{self.url.rstrip('/')}{path}"

    # The fleet and the hub itself.

    def health(self) -> operator.Health:
        return self._ask("health", operator.Health)

    def hub_time(self) -> float | None:
        """The hub's time by its ``Date`` header, in whole seconds. None without the header."""
        date = self._send(BY_NAME["health"]).headers.get("date")
        try:
            return parsedate_to_datetime(date).timestamp() if date else None
        except ValueError:
            return None

    def metrics(self) -> str:
        return self._send(BY_NAME["metrics"]).body.decode()

    def openapi(self) -> bytes:
        """The operator API as an OpenAPI 3.1 document."""
        return self._send(BY_NAME["openapi"]).body

    def fleet(self) -> operator.FleetView:
        return self._ask("fleet", operator.FleetView)

    def audit(self, *, before: int | None = None, limit: int | None = None) -> operator.AuditPage:
        return self._ask("audit", operator.AuditPage, query={"before": before, "limit": limit})

    def events(
        self, *, after: int | None = None, kinds: tuple[str, ...] = (), follow: bool = True
    ) -> Iterator[bytes]:
        """The stream of events after this id; None: from now on. See ``client.events``."""
        query = {"after": after, "kind": kinds, "follow": None if follow else "false"}
        return self._stream("events", {}, query, timeout_s=EVENTS_TIMEOUT_S)

    # Devices.

    def claim(self, request: operator.ClaimRequest) -> operator.Claims:
        return self._ask("claim", operator.Claims, body=request)

    def devices(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        only: DeviceFilter | None = None,
    ) -> operator.DevicePage:
        """One page of devices. ``next`` of the answer is ``after`` for the next page."""
        query: dict[str, str | int | tuple[str, ...] | None] = {"after": after, "limit": limit}
        if only is not None:
            query |= {name: getattr(only, name) or None for name in _TEXTS}
            query["state"] = only.states
        return self._ask("devices", operator.DevicePage, query=query)

    def names(
        self, kind: str, *, prefix: str = "", model: str | None = None, limit: int | None = None
    ) -> operator.Names:
        """The first names that begin with ``prefix``.

        ``kind`` is ``devices``, ``models``, ``rollouts``, or ``releases`` with their ``model``.
        """
        query = {"prefix": prefix or None, "model": model, "limit": limit}
        return self._ask("names", operator.Names, parameters={"kind": kind}, query=query)

    def device(self, name: str) -> operator.DeviceView:
        return self._ask("device", operator.DeviceView, parameters={"device": name})

    def why_device(self, name: str) -> WaitReport:
        return self._ask("device_why", WaitReport, parameters={"device": name})

    def device_history(self, name: str) -> operator.DeviceHistory:
        """The last attempts of a device at releases, newest first."""
        return self._ask("device_history", operator.DeviceHistory, parameters={"device": name})

    def device_figures(self, name: str) -> DeviceFigures:
        """The serving figures that a device reported since it was first asked for."""
        return self._ask("device_figures", DeviceFigures, parameters={"device": name})

    def quarantined(self) -> operator.QuarantinedDevices:
        return self._ask("quarantined", operator.QuarantinedDevices)

    def unquarantine(self, name: str, request: operator.Unquarantine) -> operator.DeviceView:
        """Take a device out of quarantine."""
        return self._ask(
            "unquarantine", operator.DeviceView, body=request, parameters={"device": name}
        )

    def clear_copy(self, name: str, request: ClearCopy) -> operator.DeviceView:
        """Clear a copied device: the copies of it are stopped."""
        names = {"device": name}
        return self._ask("clear_copy", operator.DeviceView, body=request, parameters=names)

    def label_device(self, name: str, request: LabelDevice) -> operator.DeviceView:
        """Set labels of the operator, which override those of the device, or remove some."""
        names = {"device": name}
        return self._ask("label_device", operator.DeviceView, body=request, parameters=names)

    def rename_device(self, name: str, request: RenameDevice) -> operator.DeviceView:
        names = {"device": name}
        return self._ask("rename_device", operator.DeviceView, body=request, parameters=names)

    def remove_device(self, name: str, request: RemoveDevice) -> RemovedDevice:
        """Remove a device from the fleet, from every count and every rollout."""
        return self._ask("remove_device", RemovedDevice, body=request, parameters={"device": name})

    def add_truth(self, request: operator.TruthRequest) -> operator.TruthAdded:
        """Add late labels for the answers of a device."""
        return self._ask("add_truth", operator.TruthAdded, body=request)

    def freeze(self, request: Freeze) -> Freeze:
        """Freeze the whole fleet, or unfreeze it."""
        return self._ask("freeze", Freeze, body=request)

    def accept_restored(self, request: AcceptRestored) -> AcceptedRestored:
        """Accept the state of a hub that was restored from an older copy."""
        return self._ask("accept_restored", AcceptedRestored, body=request)

    def frozen(self) -> Freeze:
        return self._ask("frozen", Freeze)

    # Models, releases and the keys that sign them.

    def trust(self, key: operator.TrustKey) -> operator.TrustedKeys:
        return self._ask("trust", operator.TrustedKeys, body=key)

    def trusted(self) -> operator.TrustedKeys:
        return self._ask("trusted", operator.TrustedKeys)

    def models(self) -> operator.Models:
        return self._ask("models", operator.Models)

    def model(self, name: str) -> operator.ModelView:
        return self._ask("model", operator.ModelView, parameters={"model": name})

    def model_field(self, name: str) -> ModelField:
        """Latency and memory of a model's releases in the field, by hardware class."""
        return self._ask("model_field", ModelField, parameters={"model": name})

    def release(self, model: str, release: str) -> operator.ReleaseView:
        names = {"model": model, "release": release}
        return self._ask("release", operator.ReleaseView, parameters=names)

    def why_release(self, model: str, release: str) -> WaitReport:
        names = {"model": model, "release": release}
        return self._ask("release_why", WaitReport, parameters=names)

    def publish(self, envelope: Envelope) -> operator.ReleaseView:
        """Publish a release. All its artifacts must be uploaded first."""
        request = operator.PublishRequest(envelope=envelope)
        return self._ask("publish", operator.ReleaseView, body=request)

    # Artifacts.

    def has_artifact(self, sha256: str) -> bool:
        return self._upload_offset(sha256) is None

    def upload(self, sha256: str, path: Path, progress: Progress | None = None) -> bool:
        """Send the file unless the hub has it. Returns whether it was sent.

        An upload that was interrupted before is continued. The sum of ``progress`` is the file's
        size in all cases; a negative number takes bytes back, which are sent again. The file is
        streamed. Raises PublisherError ``digest_mismatch`` if the file became shorter during the
        upload.
        """
        offset = self._upload_offset(sha256)
        size_bytes = path.stat().st_size
        if offset is None:
            if progress:
                progress(size_bytes)
            return False
        if offset >= size_bytes:
            offset = 0  # it has more bytes than the file: it is not of this artifact
        try:
            self._send_file(sha256, path, offset, progress)
        except PublisherError as error:
            if not offset or error.code != "digest_mismatch" or error.field != "sha256":
                raise
            if progress:
                progress(-size_bytes)
            self._send_file(sha256, path, 0, progress)  # the earlier bytes were damaged
        return True

    def _upload_offset(self, sha256: str) -> int | None:
        """Bytes of the artifact that an interrupted upload has left. None if the hub has all."""
        endpoint = BY_NAME["artifact_head"]
        answer = self._send(endpoint, parameters={"sha256": sha256}, absent_is_answer=True)
        if answer.status != 404:
            return None
        text = answer.headers.get("upload-offset", "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else 0

    def _send_file(
        self, sha256: str, path: Path, offset: int, progress: Progress | None = None
    ) -> None:
        """Upload the bytes of the file from ``offset`` on."""
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            file.seek(offset)
            if progress and offset:
                progress(offset)

            def pieces() -> Iterator[bytes]:
                sent = offset
                while piece := file.read(min(UPLOAD_CHUNK_BYTES, size_bytes - sent)):
                    yield piece
                    sent += len(piece)
                    if progress:
                        progress(len(piece))
                if sent < size_bytes:
                    self.close()  # ends the request: the hub waits for the rest
                    raise PublisherError(
                        "digest_mismatch",
                        f"{path} became shorter during the upload: {sent} of {size_bytes} bytes.",
                    )

            headers = {
                "Content-Length": str(size_bytes - offset),
                "Content-Type": "application/octet-stream",
            }
            if offset:
                headers["Content-Range"] = f"bytes {offset}-{size_bytes - 1}/{size_bytes}"
            self._send(
                BY_NAME["artifact_put"],
                parameters={"sha256": sha256},
                body=pieces(),
                headers=headers,
                timeout_s=UPLOAD_TIMEOUT_S,
            )

    def collect(self, request: Collect) -> Collected:
        """Remove the artifacts that no release needs, or count them."""
        return self._ask("collect", Collected, body=request)

    def download(self, sha256: str) -> Iterator[bytes]:
        """The artifact's bytes in pieces. The caller must check their digest."""
        return self._stream("artifact_get", {"sha256": sha256}, {}, timeout_s=REQUEST_TIMEOUT_S)

    # Rollouts.

    def plan(self, spec: RolloutSpec) -> RolloutView:
        return self._ask("plan", RolloutView, body=spec)

    def plan_fleet(self, spec: RolloutSpec) -> operator.PlanFleet:
        """Check a plan and count its devices. The plan is not stored."""
        return self._ask("plan_fleet", operator.PlanFleet, body=spec)

    def rollouts(
        self,
        *,
        model: str | None = None,
        status: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> operator.Rollouts:
        """One page of rollouts, newest first. ``next`` is as that of ``devices``."""
        query = {"after": after, "limit": limit, "model": model, "status": status}
        return self._ask("rollouts", operator.Rollouts, query=query)

    def rollout(self, rollout_id: str) -> RolloutView:
        return self._ask("rollout", RolloutView, parameters={"rollout": rollout_id})

    def why_rollout(self, rollout_id: str) -> WaitReport:
        return self._ask("rollout_why", WaitReport, parameters={"rollout": rollout_id})

    def history(self, rollout_id: str) -> operator.RolloutHistory:
        names = {"rollout": rollout_id}
        return self._ask("rollout_history", operator.RolloutHistory, parameters=names)

    def approve(self, rollout_id: str, request: ApproveRequest) -> RolloutView:
        """Approve a rollout, as a person."""
        return self._ask("approve", RolloutView, body=request, parameters={"rollout": rollout_id})

    def command(self, rollout_id: str, verb: Verb, command: Command | None = None) -> RolloutView:
        return self._ask(
            "command",
            RolloutView,
            parameters={"rollout": rollout_id, "verb": verb.value},
            body=command or Command(),
        )

    # The wire.

    def _ask(
        self,
        name: str,
        kind: type[W],
        *,
        parameters: Mapping[str, str] | None = None,
        query: Mapping[str, str | int | tuple[str, ...] | None] | None = None,
        body: Wire | None = None,
    ) -> W:
        endpoint = BY_NAME[name]
        given = None if body is None else type(body)
        if endpoint.answer is not kind or endpoint.request is not given:
            msg = f"the table has {endpoint.request} -> {endpoint.answer} for {name}"
            raise AssertionError(msg)
        answer = self._send(
            endpoint,
            parameters=parameters or {},
            query=query or {},
            body=None if body is None else encode(body),
            headers={} if body is None else {"Content-Type": "application/json"},
        )
        return decode(answer.body, kind, code="answer_malformed")

    def _send(
        self,
        endpoint: Endpoint,
        *,
        parameters: Mapping[str, str] | None = None,
        query: Mapping[str, str | int | tuple[str, ...] | None] | None = None,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
        absent_is_answer: bool = False,
    ) -> Answer:
        answer = self._link.request(
            endpoint.method,
            self._path(endpoint, parameters or {}, query or {}),
            headers={**self._headers, **(headers or {})},
            body=body,
            timeout_s=timeout_s,
        )
        if answer.status < 300 or (absent_is_answer and answer.status == 404):
            return answer
        raise _error(answer) from Refusal(answer.status)

    def _stream(
        self,
        name: str,
        parameters: Mapping[str, str],
        query: Mapping[str, str | int | tuple[str, ...] | None],
        *,
        timeout_s: float,
    ) -> Iterator[bytes]:
        path = self._path(BY_NAME[name], parameters, query)
        answer = self._link.download(path, headers=self._headers, timeout_s=timeout_s)
        if answer.status != 200:
            body = b"".join(answer.chunks)
            raise error_from_answer(answer.status, body) from Refusal(answer.status)
        return answer.chunks

    def _path(
        self,
        endpoint: Endpoint,
        parameters: Mapping[str, str],
        query: Mapping[str, str | int | tuple[str, ...] | None],
    ) -> str:
        path = endpoint.path.format_map({k: _segment(k, v) for k, v in parameters.items()})
        given = {name: value for name, value in query.items() if value is not None}
        return f"{self._prefix}{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")


def check_url(url: str) -> str:
    """Return ``url`` if it is valid for a hub. Raises OperatorError ``setting_invalid``."""
    try:
        parts = urlsplit(url)
        fits = bool(parts.path) if parts.scheme == "unix" else bool(parts.hostname)
        fits = fits and parts.scheme in ("http", "https", "unix") and parts.port != 0
    except ValueError:
        fits = False
    if not fits or not url.isascii() or not url.isprintable() or " " in url:
        raise OperatorError(
            "setting_invalid",
            f"{url!r} is not the address of a hub.",
            field="hub",
            hint="Give http://host:port, as `edgefleet serve` prints it.",
        )
    return url


def check_token(token: str) -> str:
    """Return ``token`` if it is valid in a header. Raises OperatorError ``setting_invalid``."""
    if len(token) > TOKEN_CHARS or not (token.isascii() and token.isprintable()) or " " in token:
        raise OperatorError(
            "setting_invalid",
            "The token is too long, or has characters that are not allowed.",
            field="token",
            hint="Copy the whole line, such as that in operator.token of the hub's data folder.",
        )
    return token


def _segment(parameter: str, value: str) -> str:
    """One segment of a path. Raises ``name_invalid`` for a slash: servers decode %2F."""
    match parameter:
        case "sha256":
            return quote(value, safe="")
        case "user":
            return quote(check_user_name(value, field=parameter), safe="")
        case _:
            return check_name(value, field=parameter)


def _error(answer: Answer) -> EdgefleetError:
    if not answer.body and answer.status == 401:  # an answer to HEAD has no body
        return OperatorError("unauthenticated", "The hub does not accept this token.")
    if not answer.body and answer.status == 403:
        return OperatorError("forbidden", "The role of this token does not allow it.")
    if not answer.body and answer.status == 413:
        return error_from_code("artifact_too_large", "The hub accepts no artifact of this size.")
    if 300 <= answer.status < 400:
        return NetworkError(
            "answer_malformed",
            f"The server redirects to {answer.headers.get('location', 'an unnamed address')}.",
        )
    return error_from_answer(answer.status, answer.body)
