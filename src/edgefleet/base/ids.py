"""Identifiers: name checks, device hashes and new ids."""

import re
from hashlib import blake2b, file_digest, sha256
from pathlib import Path
from typing import Final

from edgefleet.base.entropy import Entropy
from edgefleet.base.errors import OperatorError
from edgefleet.base.limits import NAME_CHARS

MASK64: Final = (1 << 64) - 1
_NAME: Final = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,{NAME_CHARS - 2}}}[A-Za-z0-9])?")
_BASE32: Final = "0123456789abcdefghjkmnpqrstvwxyz"


def mix64(value: int) -> int:
    """Map 64 bits to 64 bits, one to one, with every input bit reaching every output bit.

    The finaliser of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
    generators", OOPSLA 2014).
    """
    value &= MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK64
    return value ^ (value >> 31)


def device_hash(device_id: str) -> int:
    """The 64-bit hash of a device id. Waves and samples of the fleet are computed from it."""
    return int.from_bytes(blake2b(device_id.encode(), digest_size=8).digest(), "big")


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of ``data`` in hexadecimal: the name of an artifact with these bytes."""
    return sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, which is read piece by piece. Raises OSError."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def new_id(prefix: str, now: float, entropy: Entropy) -> str:
    """A new id: ``prefix-``, 9 characters of milliseconds and 7 random ones. Ids sort by age."""
    return _id(prefix, now, int.from_bytes(entropy.token(5), "big") >> 5)


def id_after(prefix: str, now: float) -> str:
    """A text that sorts after each id that ``new_id`` has made until ``now``."""
    return _id(prefix, now, (1 << 35) - 1)


def _id(prefix: str, now: float, rest: int) -> str:
    number = (int(now * 1000) << 35) | rest
    digits = ""
    for _ in range(16):
        digits = _BASE32[number & 31] + digits
        number >>= 5
    return f"{prefix}-{digits}"


def is_name(name: str) -> bool:
    """Whether ``name`` is valid for a model, release, device or profile."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def check_name(name: str, *, field: str) -> str:
    """Return ``name`` if it is valid for a model, release, device or profile.

    Raises OperatorError ``name_invalid``.
    """
    if not is_name(name):
        raise OperatorError("name_invalid", f"{name!r} is not a valid name.", field=field)
    return name
