"""API tokens: ``ef_<id>_<secret>``. The hub stores the SHA-256 of the secret.

The secret has 256 random bits, so a fast digest is enough: nobody can try them all.
"""

import hmac
from dataclasses import dataclass
from typing import Final

from edgefleet.base.base64url import to_base64url
from edgefleet.base.entropy import Entropy
from edgefleet.security.credentials import SECRET_BYTES, token_digest

PREFIX: Final = "ef_"
_ID_BYTES: Final = 5


@dataclass(frozen=True, slots=True)
class ApiToken:
    id: str
    secret: str

    @property
    def text(self) -> str:
        return f"{PREFIX}{self.id}_{self.secret}"

    @property
    def digest(self) -> str:
        """The stored form."""
        return token_digest(self.secret)

    def has_digest(self, digest: str) -> bool:
        """Compares in constant time."""
        return hmac.compare_digest(self.digest.encode(), digest.encode())


def new_api_token(entropy: Entropy) -> ApiToken:
    return ApiToken(entropy.token(_ID_BYTES).hex(), new_secret(entropy))


def new_secret(entropy: Entropy) -> str:
    """32 random bytes as base64url, without padding."""
    return to_base64url(entropy.token(SECRET_BYTES))


def read_api_token(text: str) -> ApiToken | None:
    """The parts of a token. None for a text of another form."""
    if not text.startswith(PREFIX):
        return None
    id_, _, secret = text.removeprefix(PREFIX).partition("_")
    return ApiToken(id_, secret) if id_ and secret else None
