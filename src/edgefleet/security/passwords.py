"""Passwords, stored with scrypt: a guess costs memory, so a stolen database is slow to search.

The parameters are one of the choices of the OWASP password storage cheat sheet: 32 MiB, and three
passes. The stored text has them, so later versions can raise them.
"""

import hmac
from base64 import b64decode, b64encode
from hashlib import scrypt
from typing import Final

from edgefleet.base.entropy import Entropy
from edgefleet.base.errors import OperatorError
from edgefleet.protocol.people import PASSWORD_CHARS

_LOG_N: Final = 15
_R: Final = 8
_P: Final = 3
_SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32
_MAX_MEMORY: Final = 64 << 20  # bytes; 128 * r * n is 32 MiB
NO_PASSWORD: Final = f"scrypt${_LOG_N}${_R}${_P}${'A' * 22}==${'A' * 43}="
"""No password has this digest. It takes as long to compare as any other."""


def check_password(password: str) -> str:
    """Return ``password`` if it is long enough. Raises OperatorError ``password_weak``."""
    if len(password) < PASSWORD_CHARS:
        raise OperatorError(
            "password_weak",
            f"The password has {len(password)} characters; at least {PASSWORD_CHARS} are needed.",
            field="password",
        )
    return password


def hash_password(password: str, entropy: Entropy) -> str:
    """The stored form of a password. Takes about 0.2 s of CPU time and 32 MiB."""
    salt = entropy.token(_SALT_BYTES)
    key = _key(password, salt, _LOG_N, _R, _P)
    return f"scrypt${_LOG_N}${_R}${_P}${b64encode(salt).decode()}${b64encode(key).decode()}"


def password_fits(password: str, stored: str) -> bool:
    """Whether ``stored`` is the form of ``password``. Compares in constant time."""
    _, log_n, r, p, salt, key = stored.split("$")
    made = _key(password, b64decode(salt), int(log_n), int(r), int(p))
    return hmac.compare_digest(made, b64decode(key))


def _key(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=1 << log_n,
        r=r,
        p=p,
        maxmem=_MAX_MEMORY,
        dklen=_KEY_BYTES,
    )
