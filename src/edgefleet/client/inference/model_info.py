"""The description of a served model, and the errors of its server."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from edgefleet.base.errors import CATALOG, EdgefleetError, error_from_code
from edgefleet.base.texts import one_line, shortened
from edgefleet.protocol.wire import Wire

_BY_STATUS: Final[Mapping[int, str]] = MappingProxyType(
    {
        404: "not_found",
        405: "method_not_allowed",
        408: "request_too_slow",
        413: "body_too_large",
        429: "overloaded",
        431: "head_too_large",
        503: "overloaded",
    }
)
_ERROR_CHARS: Final = 500


class TensorInfo(Wire, frozen=True, kw_only=True):
    """An input or output of a model. A size of -1 is open. Servers have parameters of their own."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes. Empty if the server does not give them."""
        names = (self.parameters or {}).get("classes")
        return tuple(map(str, names)) if isinstance(names, list) else ()

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} {list(self.shape)}"


class ModelInfo(Wire, frozen=True, kw_only=True):
    """The answer to ``GET /v2/models/MODEL``."""

    name: str
    versions: tuple[str, ...] = ()
    platform: str = ""
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()

    @property
    def wanted(self) -> str:
        """The inputs as text, for messages."""
        return "; ".join(map(str, self.inputs))


def error_of_answer(status: int, body: bytes) -> EdgefleetError:
    """The typed error of an answer with this status, of edgefleet or of another server.

    Servers of the protocol answer with ``{"error": text}``; edgefleet adds code, field and hint.
    """
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = None
    fields: dict[str, Any] = found if isinstance(found, dict) else {}
    text = fields.get("error", fields.get("message"))
    if not isinstance(text, str) or not text:
        text = f"The server answered with status {status}."
    code = fields.get("code")
    if not isinstance(code, str) or code not in CATALOG:
        code = _BY_STATUS.get(status, "bad_request" if status < 500 else "inference_failed")
    field, hint = fields.get("field"), fields.get("hint")
    if isinstance(field, str):
        text = text.removeprefix(f"{field}: ")  # it is there for clients that show the text alone
    return error_from_code(
        code,
        shortened(one_line(text), _ERROR_CHARS),
        field=field if isinstance(field, str) else None,
        hint=hint if isinstance(hint, str) and hint else None,
    )
