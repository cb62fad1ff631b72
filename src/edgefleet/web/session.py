"""Cookies of sessions, and the proofs that a form is of this session and of this origin (CSRF)."""

import hashlib
import hmac
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from edgefleet.base.entropy import Entropy
from edgefleet.web.hub_interface import Logins


def set_session(answer: Response, logins: Logins, session: str, *, secure: bool) -> None:
    """Give the browser its session. ``secure``: over HTTPS alone."""
    answer.set_cookie(
        logins.cookie,
        session,
        max_age=int(logins.session_s),
        httponly=True,
        samesite="lax",
        secure=secure,
    )


def client_address(request: Request) -> str:
    """The network address of the client. Empty if it is not known."""
    return request.client.host if request.client else ""


def form_token(session: str, entropy: Entropy) -> str:
    """The CSRF token that each form of this session must carry.

    Each call masks it with other random bytes: pages are compressed, and the size of a page that
    repeats a part of its address would otherwise reveal the token (BREACH).
    """
    mac = _mac(session)
    mask = entropy.token(len(mac))
    return mask.hex() + _xor(mask, mac).hex()


def form_token_valid(session: str, given: str) -> bool:
    """True if ``form_token`` of the same session made the token, with any mask."""
    try:
        masked = bytes.fromhex(given)
    except ValueError:
        return False
    half = len(masked) // 2
    return hmac.compare_digest(_xor(masked[:half], masked[half:]), _mac(session))


def is_same_origin(request: Request) -> bool:
    """False if the browser says that a page of another origin sent this request.

    Hosts are compared and not schemes: a proxy may end TLS. A program sends no ``Origin``.
    """
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site", "none") in {"none", "same-origin"}
    return urlsplit(origin).netloc == request.headers.get("host", "") != ""


def _mac(session: str) -> bytes:
    """The cookie's value is a secret of 256 bits, so it is a key."""
    return hmac.new(session.encode(), b"edgefleet.web.form", hashlib.sha256).digest()


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=False))
