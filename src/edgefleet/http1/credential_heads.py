"""The heads of recent requests, parsed, where each client has a credential of its own.

Two heads that differ only in the bearer credential mean the same, so one parse is enough for all
clients. A head is looked up by its bytes without the credential.
"""

import re
from typing import Final

from msgspec.structs import replace

from edgefleet.http1.known_heads import Head, KnownHeads
from edgefleet.http1.message import Request

_MARK: Final = b"\r\nAuthorization: Bearer "
_MARK_BYTES: Final = len(_MARK)
_END: Final = b"\r\n\r\n"
_CREDENTIAL: Final = re.compile(rb"[A-Za-z0-9._~+/-]{1,512}=*")  # RFC 6750, section 2.1


class CredentialHeads(KnownHeads):
    """Parsed heads by their bytes, without the credential that follows the first ``_MARK``.

    A credential that is cut out has no line break. So a head is known only if the parser accepted
    one that differs in nothing else; what the credential is made of must be checked each time.
    """

    def split(self, data: bytes) -> tuple[Head, bytes, bytes] | None:
        """The head, the credential and the body, if ``data`` is a known head and its body only.

        The credential is unchecked: its bytes may be any but a line break, until they are compared
        with one that was issued. It is missing in ``Head.headers``.
        """
        begin = data.find(_MARK) + _MARK_BYTES
        end = data.find(b"\r\n", begin)
        at = data.find(_END, end) + 4
        head = self._known.get(data[:begin] + data[end:at])
        if head is None or len(data) != at + head.body_bytes or begin < _MARK_BYTES:
            return None
        return head, data[begin:end], data[at:]

    def find(self, data: memoryview) -> tuple[bytes, Head | None]:
        """As ``KnownHeads.find``."""
        text, head = super().find(data)
        if head is None and text:
            prefix, credential, suffix = _cut(text)
            known = self._known.get(prefix + suffix) if _CREDENTIAL.fullmatch(credential) else None
            head = None if known is None else _with(known, credential)
        return text, head

    def whole_request(self, data: bytes, peer: str) -> Request | None:
        """As ``KnownHeads.whole_request``."""
        found = self.split(data)
        if found is None:
            return super().whole_request(data, peer)
        head, credential, body = found
        if not _CREDENTIAL.fullmatch(credential):
            return None
        head = _with(head, credential)
        return Request(head.method, head.path, head.query, head.headers, body, peer)

    def add(self, text: bytes, head: Head) -> None:
        """As ``KnownHeads.add``."""
        prefix, credential, suffix = _cut(text)
        if not prefix:
            super().add(text, head)
        elif _CREDENTIAL.fullmatch(credential):
            headers = dict(head.headers)
            if headers.pop(b"authorization", b"") == b"Bearer " + credential:
                super().add(prefix + suffix, replace(head, headers=headers))


def _cut(text: bytes) -> tuple[bytes, bytes, bytes]:
    """The part of a head before its credential, the credential, and the part after it.

    The first two are empty without ``_MARK``.
    """
    at = text.find(_MARK)
    if at < 0:
        return b"", b"", text
    begin = at + _MARK_BYTES
    end = text.find(b"\r\n", begin)
    return text[:begin], text[begin:end], text[end:]


def _with(head: Head, credential: bytes) -> Head:
    return replace(head, headers={**head.headers, b"authorization": b"Bearer " + credential})
