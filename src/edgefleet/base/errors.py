"""Errors, typed by who must act; each has a stable code, a hint and a retry rule.

Raise the class of the party that can mend it::

    raise OperatorError("percent_not_rising", "5 % after 10 %", field="waves[1].percent")

The catalogue below is the whole list. ``docs/errors.md`` has a heading for each code, and a test
holds the two together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, Final


class Party(StrEnum):
    """Who must act before it can work."""

    DEVICE = "device"
    OPERATOR = "operator"
    PUBLISHER = "publisher"
    NETWORK = "network"
    US = "us"


class Retry(StrEnum):
    """What the caller may do by itself."""

    NEVER = "never"  # the same call fails again
    LATER = "later"  # after a pause, unchanged
    AFTER_FIX = "after_fix"  # once somebody changed what the hint names


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row of the catalogue. ``status`` is the HTTP status that carries it."""

    party: Party
    status: int
    retry: Retry
    hint: str


_D, _O, _P, _N, _U = Party.DEVICE, Party.OPERATOR, Party.PUBLISHER, Party.NETWORK, Party.US
_FIX, _LATER, _NEVER = Retry.AFTER_FIX, Retry.LATER, Retry.NEVER

CATALOG: Final[Mapping[str, ErrorKind]] = MappingProxyType(
    {
        # What a publisher sends.
        "not_a_model": ErrorKind(_P, 422, _FIX, "Give an ONNX file exported by your framework."),
        "model_truncated": ErrorKind(
            _P, 422, _FIX, "The file ends early: export or copy it again."
        ),
        "model_is_pickle": ErrorKind(
            _P, 422, _FIX, "A pickle can run code, so it is never accepted: export to ONNX."
        ),
        "model_unsupported": ErrorKind(_P, 422, _FIX, "Export with operators the runtime knows."),
        "digest_mismatch": ErrorKind(
            _P, 422, _FIX, "The bytes are not those that were announced: send them again."
        ),
        "signature_invalid": ErrorKind(
            _P, 422, _FIX, "Sign with a key that the hub and its devices trust."
        ),
        "golden_mismatch": ErrorKind(
            _P, 422, _FIX, "Build the golden set with the input names and shapes of the model."
        ),
        "golden_failed": ErrorKind(
            _P, 422, _FIX, "The variant does not do what its golden set says: do not ship it."
        ),
        "release_exists": ErrorKind(
            _P, 409, _NEVER, "A release is immutable: publish under a new version."
        ),
        "release_incomplete": ErrorKind(_P, 422, _FIX, "Upload the missing artifacts first."),
        "artifact_too_large": ErrorKind(_P, 413, _FIX, "Shrink the artifact or raise the limit."),
        "release_file_invalid": ErrorKind(_P, 422, _FIX, "Mend release.toml where the field says."),
        # What an operator asks for.
        "bad_request": ErrorKind(_O, 400, _FIX, "Mend the field that is named."),
        "not_authorized": ErrorKind(
            _O, 401, _FIX, "Give the operator token: --token, EDGEFLEET_TOKEN or --data-dir."
        ),
        "not_found": ErrorKind(_O, 404, _FIX, "List what there is, then name one of them."),
        "percent_out_of_range": ErrorKind(_O, 422, _FIX, "Give percents above 0, up to 100."),
        "percent_not_rising": ErrorKind(_O, 422, _FIX, "Let each wave be larger than the last."),
        "waves_invalid": ErrorKind(_O, 422, _FIX, "Give between 1 and 20 waves, such as 1,10,100."),
        "selector_invalid": ErrorKind(
            _O, 422, _FIX, "Use Kubernetes syntax: site=lyon,tier in (gold,silver),!canary."
        ),
        "selector_key_unknown": ErrorKind(
            _O, 422, _FIX, "No device carries this label: see `edgefleet device list`."
        ),
        "fleet_empty": ErrorKind(_O, 422, _FIX, "The selector matches no device: widen it."),
        "variant_missing": ErrorKind(
            _O, 422, _FIX, "Publish a variant for that profile, or narrow the selector."
        ),
        "rollout_overlap": ErrorKind(
            _O, 409, _LATER, "Wait for the other rollout, or halt it, or narrow the selector."
        ),
        "release_current": ErrorKind(
            _O, 409, _NEVER, "Every device of the selection runs it, or is told to: plan another."
        ),
        "release_failed_before": ErrorKind(
            _O, 409, _FIX, "It was taken back from this fleet: publish a new release."
        ),
        "verb_not_now": ErrorKind(
            _O, 409, _FIX, "See `edgefleet rollout why` for what it waits for."
        ),
        "form_stale": ErrorKind(_O, 403, _FIX, "Reload the page, then give the verb again."),
        "exposure_invalid": ErrorKind(
            _O, 422, _FIX, "Let at least 1 device begin: exposure.first."
        ),
        "pace_invalid": ErrorKind(_O, 422, _FIX, "Give 0 (unlimited) or more."),
        "budget_invalid": ErrorKind(_O, 422, _FIX, "Name a label and 1 device or more."),
        "window_invalid": ErrorKind(
            _O, 422, _FIX, "Give HH:MM to HH:MM, days such as mon, and a zone as Europe/Paris."
        ),
        "approval_invalid": ErrorKind(_O, 422, _FIX, "Ask for 0, 1 or 2 people."),
        "device_not_quarantined": ErrorKind(_O, 409, _NEVER, "See `edgefleet device why`."),
        "approved_already": ErrorKind(_O, 409, _FIX, "Let somebody else approve it."),
        "gate_invalid": ErrorKind(_O, 422, _FIX, "Mend the gate's field that is named."),
        "name_invalid": ErrorKind(
            _O, 422, _FIX, "Use 1 to 63 letters, digits, dots, dashes or underscores."
        ),
        "setting_invalid": ErrorKind(_O, 400, _FIX, "Mend the option, variable or TOML key named."),
        "address_in_use": ErrorKind(_O, 500, _FIX, "Another program listens there: pick a port."),
        "data_dir_in_use": ErrorKind(
            _O, 500, _FIX, "Another hub or agent holds this data folder: stop it or pick another."
        ),
        "store_foreign": ErrorKind(
            _O, 500, _FIX, "Start the version that wrote it, or give another data folder."
        ),
        # What a device does, or meets.
        "claim_used": ErrorKind(_D, 409, _NEVER, "A claim enrols one device: ask for a new one."),
        "claim_unknown": ErrorKind(_D, 401, _NEVER, "Ask the operator for a claim."),
        "claim_expired": ErrorKind(_D, 410, _NEVER, "Ask the operator for a fresh claim."),
        "device_name_taken": ErrorKind(_D, 409, _FIX, "Enrol under another name."),
        "credential_invalid": ErrorKind(_D, 401, _FIX, "Enrol the device again."),
        "checkin_malformed": ErrorKind(_D, 400, _NEVER, "Update the agent: its message is wrong."),
        "checkin_replayed": ErrorKind(
            _D, 409, _FIX, "This sequence number was used: go on from the one in the answer."
        ),
        "protocol_unsupported": ErrorKind(_D, 426, _FIX, "Update the agent or the hub."),
        "body_too_large": ErrorKind(_D, 413, _NEVER, "Send less in one request."),
        "head_too_large": ErrorKind(_D, 431, _NEVER, "Send fewer or shorter headers."),
        "request_too_slow": ErrorKind(_D, 408, _LATER, "The request did not arrive in time."),
        "request_malformed": ErrorKind(_D, 400, _NEVER, "Send well-formed HTTP/1.1."),
        "method_not_allowed": ErrorKind(_O, 405, _NEVER, "Use the method that the endpoint has."),
        "range_invalid": ErrorKind(_D, 416, _FIX, "Ask for bytes that the artifact has."),
        "disk_full": ErrorKind(_D, 507, _LATER, "Free space on the device: the attempt goes on."),
        "runtime_missing": ErrorKind(
            _D, 500, _FIX, "Install the runtime: pip install 'edgefleet[serving]'."
        ),
        "golden_refused": ErrorKind(_D, 422, _NEVER, "The device keeps the release that it has."),
        "inference_failed": ErrorKind(
            _D, 500, _LATER, "See the serving log for the model's error."
        ),
        "not_ready": ErrorKind(
            _D, 503, _LATER, "No release is active on this device yet: see its agent's log."
        ),
        "overloaded": ErrorKind(_D, 503, _LATER, "The queue is full: retry after the pause named."),
        # The way between.
        "unreachable": ErrorKind(
            _N, 503, _LATER, "See whether it runs, and whether the address is right."
        ),
        "timeout": ErrorKind(_N, 504, _LATER, "The other side did not answer in time."),
        "connection_lost": ErrorKind(_N, 502, _LATER, "The connection broke: it is tried again."),
        "answer_malformed": ErrorKind(_N, 502, _LATER, "Something that is no hub answered."),
        # Ours.
        "internal": ErrorKind(_U, 500, _LATER, "This is a defect of edgefleet: please report it."),
        "demo_failed": ErrorKind(_U, 500, _NEVER, "Look at the checks that failed above."),
    }
)


class EdgefleetError(Exception):
    """An error that somebody can act on. Raise one of the five subclasses.

    ``code`` is a key of ``CATALOG``; ``field`` names the input at fault in the caller's own words
    (``waves[1].percent``); ``hint`` replaces the catalogue's where a better one is known.
    """

    party: ClassVar[Party] = Party.US

    def __init__(
        self, code: str, message: str, *, field: str | None = None, hint: str | None = None
    ) -> None:
        kind = CATALOG[code]
        if kind.party is not self.party:
            msg = f"{code} is for the {kind.party} to mend, raised as {type(self).__name__}"
            raise AssertionError(msg)
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.hint = hint or kind.hint
        self.retry = kind.retry
        self.status = kind.status

    def __str__(self) -> str:
        where = f" ({self.field})" if self.field else ""
        return f"{self.code}{where}: {self.message} {self.hint}"


class DeviceError(EdgefleetError):
    """The device, or what runs on it, must act."""

    party = Party.DEVICE


class OperatorError(EdgefleetError):
    """The operator must act."""

    party = Party.OPERATOR


class PublisherError(EdgefleetError):
    """The publisher of the release must act."""

    party = Party.PUBLISHER


class NetworkError(EdgefleetError):
    """Nobody but the link: try again later."""

    party = Party.NETWORK


class InternalError(EdgefleetError):
    """Our own defect."""

    party = Party.US


_CLASSES: Final = {
    kind.party: kind for kind in (DeviceError, OperatorError, PublisherError, NetworkError)
}


def error_from_code(
    code: str, message: str, *, field: str | None = None, hint: str | None = None
) -> EdgefleetError:
    """The typed error of ``code``; an unknown code (a newer peer's) becomes ``InternalError``."""
    kind = CATALOG.get(code)
    if kind is None:
        return InternalError("internal", f"{code}: {message}", field=field, hint=hint)
    return _CLASSES.get(kind.party, InternalError)(code, message, field=field, hint=hint)
