"""base64url without padding (RFC 4648, section 5; RFC 7515, section 2)."""

from base64 import b64decode, urlsafe_b64encode


def to_base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def from_base64url(text: str) -> bytes:
    """Raises ValueError for any other text."""
    return b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
