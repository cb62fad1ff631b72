"""Damage in transit: an answer that is not what was asked for.

A login page of a captive portal, a range that starts at another place, a wrong byte: the network is
at fault until fresh downloads over time bring the same wrong bytes, see ``damage``.
"""

from collections.abc import Mapping
from typing import Final

from edgefleet.base.errors import NetworkError

PARTIAL: Final = 206
BINARY: Final = "application/octet-stream"
JSON: Final = "application/json"


class DamagedTransferError(NetworkError):
    """``transfer_damaged``: other bytes than those that were asked for.

    ``found`` is the digest of a complete answer that was received at once. It is empty for an
    answer that shows in its header that it is another one. ``expected`` is the digest of the
    artifact; it is empty for a manifest. ``refusal`` is the reason for which the release is refused
    if the same bytes keep coming.
    """

    def __init__(
        self, message: str, *, expected: str = "", found: str = "", refusal: str = ""
    ) -> None:
        super().__init__("transfer_damaged", message)
        self.expected = expected
        self.found = found
        self.refusal = refusal


def check_type(headers: Mapping[str, str], wanted: str) -> None:
    """Raises DamagedTransferError for an answer of another type, or one that was compressed."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != wanted:
        raise DamagedTransferError(
            f"The answer is {kind[:80]}, not {wanted}: a proxy or a login page answered."
        )
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise DamagedTransferError(f"A proxy has changed the encoding to {encoding[:80]}.")


def check_range(status: int, headers: Mapping[str, str], start: int, size_bytes: int) -> None:
    """Raises DamagedTransferError if the answer is not the bytes from ``start`` to the end."""
    missing = size_bytes - start if status == PARTIAL else size_bytes
    length = headers.get("content-length", "")
    if length and length != str(missing):
        raise DamagedTransferError(f"The answer announces {length[:20]} bytes, not {missing}.")
    if status == PARTIAL:
        given = headers.get("content-range", "").strip()
        wanted = f"bytes {start}-{size_bytes - 1}/{size_bytes}"
        if given != wanted or not start:
            raise DamagedTransferError(
                f"The range of the answer is {given[:80] or 'missing'}, not {wanted}."
            )
