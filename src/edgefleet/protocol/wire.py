"""Encoding of wire types as JSON, and strict decoding with typed errors."""

import re
import threading
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from edgefleet.base.errors import EdgefleetError, error_from_code

T = TypeVar("T")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `([^`]*)`")
_UNKNOWN_HINT: Final = "Unknown field: correct its name, or remove it."


# msgspec reads the fields of a type when it first needs them, and two threads that do so at once
# can end the process. So a decoder is made by one thread at a time, with all types inside of it.
_MAKING: Final = threading.Lock()
_DECODERS: Final[dict[object, "msgspec.json.Decoder[Any]"]] = {}


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all wire types: immutable, with fields by name only."""


def encode(value: object) -> bytes:
    """JSON with keys in the order of the fields. Equal values give equal bytes."""
    return msgspec.json.encode(value)


def decode(data: bytes | bytearray | memoryview, kind: type[T], *, code: str = "bad_request") -> T:
    """Read ``kind`` from JSON. Raises the error of ``code`` with the path of the invalid field."""
    try:
        decoded: T = (_DECODERS.get(kind) or _make_decoder(kind)).decode(data)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        field = path.rstrip("`").removeprefix("$").lstrip(".")
        if unknown := _UNKNOWN.match(message):
            named = f"{field}.{unknown.group(1)}" if field else unknown.group(1)
            raise error_from_code(code, f"{message}.", field=named, hint=_UNKNOWN_HINT) from error
        raise error_from_code(code, f"{message}.", field=field or None) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise error_from_code(code, f"Invalid JSON: {error}.") from error
    except RecursionError as error:
        raise error_from_code(code, "The JSON is nested too deeply.") from error
    return decoded


def _make_decoder(kind: type[T]) -> "msgspec.json.Decoder[T]":
    with _MAKING:
        return _DECODERS.setdefault(kind, msgspec.json.Decoder(kind))


class Problem(Wire, frozen=True, kw_only=True):
    """The body of every error answer."""

    code: str
    message: str
    party: str
    retry: str
    field: str | None = None
    hint: str | None = None
    # Far from the end of the numbers: a forged answer must not leave a device without a next one.
    next_seq: Annotated[int, Meta(ge=1, le=1 << 40)] | None = None


def problem(error: EdgefleetError) -> Problem:
    """The wire form of ``error``."""
    return Problem(
        code=error.code,
        message=error.message,
        party=error.party.value,
        retry=error.retry.value,
        field=error.field,
        hint=error.hint,
    )


def error_from_answer(status: int, body: bytes) -> EdgefleetError:
    """The typed error of an answer that is not a success."""
    return error_from_problem(
        body, f"Answer with status {status}, but without a problem in its body."
    )


def error_from_problem(
    body: bytes, otherwise: str = "The text is not a problem object."
) -> EdgefleetError:
    """The typed error in ``body``. ``answer_malformed`` with ``otherwise`` if ``body`` has none."""
    try:
        read = msgspec.json.decode(body, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return error_from_code("answer_malformed", otherwise)
    return error_of(read)


def error_of(read: Problem) -> EdgefleetError:
    """The typed error that ``problem`` made into ``read``."""
    return error_from_code(read.code, read.message, field=read.field, hint=read.hint)
