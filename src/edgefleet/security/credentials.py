"""Bearer secrets: device credentials, claims and the operator's token."""

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
    """``row`` is the device's row in the hub's columns: a check-in needs no lookup by name."""

    row: int
    name: str


def issue_device_token(secret: bytes, device: DeviceIdentity) -> str:
    """``efd1.<row>.<name>.<tag>``. The tag is 128 bits of HMAC-SHA-256 under the hub's secret."""
    payload = f"efd1.{device.row}.{device.name}"
    return f"{payload}.{_tag(secret, payload)}"


def read_device_token(secret: bytes, token: str) -> DeviceIdentity:
    """The device of ``token``. Raises DeviceError ``credential_invalid``."""
    payload, _, tag = token.rpartition(".")
    if hmac.compare_digest(_tag(secret, payload).encode(), tag.encode()):
        kind, _, rest = payload.partition(".")
        row, _, name = rest.partition(".")
        if kind == "efd1" and row.isdecimal():
            return DeviceIdentity(int(row), name)
    raise DeviceError("credential_invalid", "The device's credential was not issued by this hub.")


def read_device_header(secret: bytes, authorization: str) -> DeviceIdentity:
    """The device of an ``Authorization`` header. Raises DeviceError ``credential_invalid``."""
    return read_device_token(secret, bearer(authorization))


def new_token(entropy: Entropy, prefix: str) -> str:
    """A new token or claim: ``prefix_`` and 160 random bits in hexadecimal."""
    return f"{prefix}_{entropy.token(20).hex()}"


def same_token(one: str, other: str) -> bool:
    """Whether the tokens are equal, compared in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def token_digest(token: str) -> str:
    """The stored form of a token. A copy of the database gives no valid token."""
    return sha256(token.encode()).hexdigest()


def bearer(header: str | None) -> str:
    """The bearer token of an ``Authorization`` header. Empty if it has none."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _tag(secret: bytes, payload: str) -> str:
    return hmac.new(secret, payload.encode(), sha256).hexdigest()[:_TAG_CHARS]
