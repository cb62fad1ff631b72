"""How the types become bytes: JSON, decoded strictly, with our typed error on refusal."""

import re
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from edgefleet.base.errors import EdgefleetError, error_from_code

T = TypeVar("T")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `([^`]*)`")
_UNKNOWN_HINT: Final = "There is no such field here: mend its name, or leave it out."


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything that is sent: immutable, fields by name only."""


def encode(value: object) -> bytes:
    """JSON, keys in the order of the fields: the same value always gives the same bytes."""
    return msgspec.json.encode(value)


def decode(data: bytes, kind: type[T], *, code: str = "bad_request") -> T:
    """Read ``kind`` from JSON. Raises the typed error of ``code``, naming the field at fault."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        field = path.rstrip("`").removeprefix("$").lstrip(".")
        if unknown := _UNKNOWN.match(message):
            named = f"{field}.{unknown.group(1)}" if field else unknown.group(1)
            raise error_from_code(code, f"{message}.", field=named, hint=_UNKNOWN_HINT) from error
        raise error_from_code(code, f"{message}.", field=field or None) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise error_from_code(code, f"This is no JSON: {error}.") from error
    except RecursionError as error:
        raise error_from_code(code, "The JSON is nested too deeply.") from error


class Problem(Wire, frozen=True, kw_only=True):
    """The body of every answer that is no success."""

    code: str
    message: str
    party: str
    retry: str
    field: str | None = None
    hint: str | None = None
    next_seq: Annotated[int, Meta(ge=1)] | None = None


def problem(error: EdgefleetError) -> Problem:
    """What goes over the wire for ``error``."""
    return Problem(
        code=error.code,
        message=error.message,
        party=error.party.value,
        retry=error.retry.value,
        field=error.field,
        hint=error.hint,
    )


def error_from_answer(status: int, body: bytes) -> EdgefleetError:
    """The typed error that an answer other than a success carries."""
    return error_from_problem(body, f"Answer {status} without a problem in its body.")


def error_from_problem(
    body: bytes, otherwise: str = "What was said is no problem."
) -> EdgefleetError:
    """The typed error that ``body`` is, or ``answer_malformed`` with the message ``otherwise``."""
    try:
        said = msgspec.json.decode(body, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return error_from_code("answer_malformed", otherwise)
    return error_from_code(said.code, said.message, field=said.field, hint=said.hint)
