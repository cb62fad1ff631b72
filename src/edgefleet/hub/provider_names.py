"""Names of users who come from an OpenID Connect provider."""

import re
from collections.abc import Container
from hashlib import sha256
from typing import Final

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.people import check_user_name

_CHARS: Final = 50
_OTHER: Final = re.compile(r"[^a-z0-9._@+-]+")


def free_name(shown: str, identity: tuple[str, str], taken: Container[str]) -> str:
    """A name like ``shown`` that no user has. With a digest of the identity if ``shown`` is taken.

    So a person who takes the name of another one at the provider does not become that user.
    """
    name = _OTHER.sub("-", shown.lower())[:_CHARS].strip("._@+-")
    if name not in taken and _is_valid(name):
        return name
    digest = sha256("\n".join(identity).encode()).hexdigest()
    base = f"{name}-" if _is_valid(f"{name}-0") else "user-"
    free = f"{base}{digest[:8]}"
    return free if free not in taken else f"user-{digest[:40]}"


def _is_valid(name: str) -> bool:
    try:
        check_user_name(name)
    except OperatorError:
        return False
    return True
