"""The answer of the fallback, checked, as the reply to the client. Pure.

Only an answer of the client's own protocol with status 200 counts. Of its head only the length of
the JSON is used, so nothing of the other server's headers reaches the client.
"""

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from edgefleet.base.errors import NetworkError
from edgefleet.http1.message import Reply
from edgefleet.protocol.wire import encode
from edgefleet.serving.hybrid.policy import Event

_RESULTS: Final = ("predictions", "outputs", "results", "result")  # of TensorFlow Serving
_JSON_LENGTH: Final = b"inference-header-content-length"


def reply_of(path: str, headers: Mapping[bytes, bytes], body: bytes, event: Event) -> Reply:
    """The reply to a request for ``path``. Raises NetworkError ``answer_malformed``.

    An answer of the Open Inference Protocol gets the parameters ``answered_by`` and
    ``fallback_reason``.
    """
    if not path.startswith("/v2/"):
        if not any(name in _names(body) for name in _RESULTS):
            raise malformed("it has no predictions, outputs or results")
        return Reply(200, body)
    text = headers.get(_JSON_LENGTH)
    if text is None:
        return Reply(200, _annotated(body, event))
    if not text.isdigit() or len(text) > 12 or int(text) > len(body):
        raise malformed("the length of its JSON is wrong")
    head = _annotated(body[: int(text)], event)
    return Reply(
        200,
        head + body[int(text) :],
        "application/octet-stream",
        (("Inference-Header-Content-Length", str(len(head))),),
    )


def _annotated(body: bytes, event: Event) -> bytes:
    found = _parsed(body)
    if not bytes(found.get("outputs", b"")).startswith(b"["):
        raise malformed("it has no outputs")
    try:
        given = msgspec.json.decode(
            found.get("parameters", b"null"), type=dict[str, msgspec.Raw] | None
        )
    except (msgspec.MsgspecError, RecursionError) as error:
        raise malformed("its parameters are not an object") from error
    own = {"answered_by": "fallback", "fallback_reason": str(event)}
    return encode({**found, "parameters": {**(given or {}), **own}})


def _names(body: bytes) -> Collection[str]:
    """The names in an object of TensorFlow Serving, whose numbers may be NaN or Infinity."""
    if b"NaN" not in body and b"Infinity" not in body:
        return _parsed(body)
    import json  # noqa: PLC0415 - needed for such an answer only

    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise malformed("it is not a JSON object") from error
    return found if isinstance(found, dict) else ()


def _parsed(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise malformed("it is not a JSON object") from error


def malformed(fault: str) -> NetworkError:
    """The error of an answer of the fallback that cannot be used."""
    return NetworkError("answer_malformed", f"The answer of the fallback is malformed: {fault}.")
