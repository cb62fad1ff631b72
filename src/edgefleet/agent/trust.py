"""The publisher keys that this device trusts, from a file on the device.

Keys never come from the hub. A compromised hub can offer only releases that a publisher signed.
"""

import base64
import binascii
from pathlib import Path

from edgefleet import __version__
from edgefleet.base.errors import DeviceError, OperatorError, PublisherError
from edgefleet.protocol.release import Envelope, ReleaseManifest
from edgefleet.protocol.wire import decode

KEY_BYTES = 32


class Trust:
    """Verifies signed envelopes. ``unreadable`` is the reason why there are no keys."""

    def __init__(self, keys: tuple[str, ...], unreadable: OperatorError | None = None) -> None:
        self.keys = keys
        self._unreadable = unreadable

    @classmethod
    def load(cls, file: Path) -> "Trust":
        """Read one base64 Ed25519 key per line. ``#`` starts a comment.

        Raises OperatorError ``setting_invalid`` if the file has no key or an invalid line.
        """
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(
                "setting_invalid", f"{file} cannot be read ({error}).", field="trust"
            ) from error
        keys = tuple(text for line in lines if (text := line.partition("#")[0].strip()))
        for number, key in enumerate(keys, start=1):
            if not _is_key(key):
                raise OperatorError(
                    "setting_invalid",
                    f"Key {number} of {file} is not an Ed25519 public key.",
                    field="trust",
                )
        if not keys:
            raise OperatorError("setting_invalid", f"{file} has no key.", field="trust")
        return cls(keys)

    def open(self, envelope: bytes) -> tuple[str, ReleaseManifest]:
        """Verify an envelope. Returns the digest and the manifest.

        Raises PublisherError, DeviceError ``manifest_unreadable`` for one that a trusted key has
        signed and this agent cannot read, OperatorError if the keys could not be read.
        """
        if self._unreadable is not None:
            raise self._unreadable
        # Imported with the first manifest: saves an idle device 7 MiB.
        from edgefleet.security.signing import PublicKey, open_manifest  # noqa: PLC0415

        trusted = {key.keyid: key for key in map(PublicKey.from_text, self.keys)}
        try:
            opened = open_manifest(decode(envelope, Envelope, code="signature_invalid"), trusted)
        except PublisherError as error:
            if error.code != "release_file_invalid":
                raise
            raise DeviceError(
                "manifest_unreadable",
                f"Agent {__version__} cannot read this manifest, although a trusted key has signed "
                f"it: {error.message}",
                field=error.field,
            ) from error
        return opened.digest, opened.manifest


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):
        return False
