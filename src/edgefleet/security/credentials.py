"""Secrets that are shown with a request: device credentials, claims and the operator's token."""

import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from edgefleet.base.entropy import Entropy
from edgefleet.base.errors import DeviceError

SECRET_BYTES: Final = 32
_TAG_CHARS: Final = 32  # 128 bits


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """``row`` is the device's place in the hub's columns, so no name is looked up on check-in."""

    row: int
    name: str


def issue_device_token(secret: bytes, device: DeviceIdentity) -> str:
    """``efd1.<row>.<name>.<tag>``; the tag is HMAC-SHA-256 under the hub's secret, 128 bits."""
    said = f"efd1.{device.row}.{device.name}"
    return f"{said}.{_tag(secret, said)}"


def read_device_token(secret: bytes, token: str) -> DeviceIdentity:
    """Who holds ``token``. Raises DeviceError ``credential_invalid``."""
    said, _, tag = token.rpartition(".")
    if hmac.compare_digest(_tag(secret, said).encode(), tag.encode()):
        kind, _, rest = said.partition(".")
        row, _, name = rest.partition(".")
        if kind == "efd1" and row.isdecimal():
            return DeviceIdentity(int(row), name)
    raise DeviceError("credential_invalid", "The device's credential is not of this hub.")


def new_token(entropy: Entropy, prefix: str) -> str:
    """A secret for people and claims: ``prefix_`` + 160 random bits in hexadecimal."""
    return f"{prefix}_{entropy.token(20).hex()}"


def same_token(one: str, other: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def token_digest(token: str) -> str:
    """What is stored of a token, so that a copy of the database enrols nobody."""
    return sha256(token.encode()).hexdigest()


def bearer(header: str | None) -> str:
    """The token in an ``Authorization`` header, empty when there is none."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _tag(secret: bytes, said: str) -> str:
    return hmac.new(secret, said.encode(), sha256).hexdigest()[:_TAG_CHARS]
