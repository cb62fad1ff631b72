"""Credentials that were verified lately, so that a heartbeat computes no digest."""

from typing import Final

_KNOWN: Final = 65_536  # credentials, about 300 bytes each


class KnownCredentials:
    """The rows of verified credentials, by the bytes of the token. One token for each row.

    It keeps the last ``_KNOWN`` new ones. Each change after which a credential may be refused must
    be followed by ``forget``; see ``Devices.forget_credential``.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, int] = {}
        self._tokens: dict[int, bytes] = {}
        self.row = self._rows.get
        """The row of a token, or None if it must be verified. Bound once: a call less."""

    def add(self, token: bytes, row: int) -> None:
        """Remember a token that has just been verified."""
        if row not in self._tokens and len(self._tokens) >= _KNOWN:
            self.forget(next(iter(self._tokens)))
        self.forget(row)
        self._rows[token] = row
        self._tokens[row] = token

    def forget(self, row: int) -> None:
        """Verify the next request of the device anew."""
        token = self._tokens.pop(row, None)
        if token is not None:
            del self._rows[token]
