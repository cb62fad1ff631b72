"""The page's responses: security headers, bounded reading of forms, static files."""

import asyncio
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from edgefleet.base.errors import DeviceError
from edgefleet.web.limits import FORM_BYTES, FORM_S

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept, Cookie",
}

_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of ``static/``; ``address`` changes with its content, so browsers may cache it."""

    address: str
    content: bytes
    content_type: str


def load_assets() -> dict[str, Asset]:
    """The files of ``static/`` by name."""
    found: dict[str, Asset] = {}
    for file in resources.files("edgefleet.web").joinpath("static").iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            content = file.read_bytes()
            version = hashlib.sha256(content).hexdigest()[:12]
            address = f"/static/{file.name}?v={version}"
            found[file.name] = Asset(address, content, kind)
    return found


def html(text: str, status: int = 200) -> Response:
    return Response(text, status, HEADERS, "text/html; charset=utf-8")


def json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, HEADERS, "application/json")


def redirect(address: str) -> Response:
    """A redirect to a page of this hub, to be fetched with GET."""
    return Response(status_code=303, headers=HEADERS | {"Location": address})


def local_address(address: str) -> str:
    """``address`` if it is a page of this hub, else the first page."""
    ours = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if ours and address.isprintable() else "/"


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a posted form. Raises DeviceError ``body_too_large`` or ``request_too_slow``.

    Clients post forms without a session, so size and time are limited.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > FORM_BYTES:
                    raise DeviceError("body_too_large", f"A form has at most {FORM_BYTES} bytes.")
    except TimeoutError as error:
        raise DeviceError(
            "request_too_slow", f"The form did not arrive within {FORM_S:g} s."
        ) from error
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
