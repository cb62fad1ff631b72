"""Signatures of release manifests: Ed25519 in a DSSE envelope.

The signature covers DSSE's pre-authentication encoding, which includes the payload type. A payload
signed as one type is not valid as another (github.com/secure-systems-lab/dsse, protocol.md).
"""

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edgefleet.base.errors import OperatorError, PublisherError
from edgefleet.base.ids import sha256_hex
from edgefleet.protocol.release import MANIFEST_TYPE, Envelope, ReleaseManifest, Signature
from edgefleet.protocol.wire import decode, encode

MAX_SIGNATURES: Final = 8


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key; ``keyid`` is the SHA-256 of its 32 bytes."""

    raw: bytes

    @classmethod
    def from_text(cls, text: str, *, field: str = "public_key") -> "PublicKey":
        """Read a key of 32 bytes in base64. Raises OperatorError ``setting_invalid``."""
        try:
            raw = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != 32:
            raise OperatorError(
                "setting_invalid", "This is not an Ed25519 public key.", field=field
            )
        return cls(raw)

    @property
    def text(self) -> str:
        return base64.b64encode(self.raw).decode()

    @property
    def keyid(self) -> str:
        return sha256_hex(self.raw)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class PublisherKey:
    """The private key that signs releases. It stays on the publisher's machine."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> "PublisherKey":
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> "PublisherKey":
        """Read a key file. Raises OperatorError ``setting_invalid``."""
        try:
            seed = base64.b64decode(path.read_text().strip(), validate=True)
            return cls(Ed25519PrivateKey.from_private_bytes(seed))
        except FileNotFoundError as error:
            raise OperatorError(
                "setting_invalid",
                f"There is no key at {path}.",
                field="key",
                hint="Make one with `edgefleet key new`.",
            ) from error
        except (binascii.Error, ValueError) as error:
            raise OperatorError(
                "setting_invalid", f"{path} is not an Ed25519 key.", field="key"
            ) from error

    def save(self, path: Path) -> None:
        """Write the key with mode 0600. Raises FileExistsError if ``path`` exists."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(base64.b64encode(self._private.private_bytes_raw()).decode() + "\n")

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)


@dataclass(frozen=True, slots=True)
class OpenedManifest:
    """A manifest with a verified signature."""

    manifest: ReleaseManifest
    digest: str
    signed_by: tuple[str, ...]


def sign_manifest(manifest: ReleaseManifest, key: PublisherKey) -> Envelope:
    """Sign ``manifest``. Returns an envelope with one signature."""
    payload = encode(manifest)
    signature = key.sign(_pre_authentication(MANIFEST_TYPE, payload))
    return Envelope(
        payloadType=MANIFEST_TYPE,
        payload=base64.b64encode(payload).decode(),
        signatures=(Signature(keyid=key.public.keyid, sig=base64.b64encode(signature).decode()),),
    )


def manifest_digest(envelope: Envelope) -> str:
    """The digest of a release: SHA-256 of the signed payload. Signatures do not change it."""
    return sha256_hex(_unbase64(envelope.payload))


def open_manifest(envelope: Envelope, trusted: Mapping[str, PublicKey]) -> OpenedManifest:
    """Verify the envelope with ``trusted`` keys (by keyid), then parse its manifest.

    Checks in this order: at most 8 signatures; at least one valid signature by a trusted key, which
    covers the payload type; the type. Only then the payload is parsed. Raises PublisherError
    ``signature_invalid``, or ``release_file_invalid`` for what a trusted key has signed.
    """
    if len(envelope.signatures) > MAX_SIGNATURES:
        raise PublisherError(
            "signature_invalid",
            f"{len(envelope.signatures)} signatures; {MAX_SIGNATURES} are allowed.",
            field="signatures",
        )
    payload = _unbase64(envelope.payload)
    message = _pre_authentication(envelope.payloadType, payload)
    good = tuple(
        sorted(
            {
                signature.keyid
                for signature in envelope.signatures
                if (key := trusted.get(signature.keyid))
                and key.verifies(_unbase64(signature.sig), message)
            }
        )
    )
    if not good:
        raise PublisherError(
            "signature_invalid",
            "The envelope has no valid signature by a trusted key.",
            field="signatures",
        )
    if envelope.payloadType != MANIFEST_TYPE:
        raise PublisherError(
            "release_file_invalid",
            f"The payload type is {envelope.payloadType!r}, not {MANIFEST_TYPE!r}.",
            field="payloadType",
        )
    manifest = decode(payload, ReleaseManifest, code="release_file_invalid")
    return OpenedManifest(manifest, sha256_hex(payload), good)


def _pre_authentication(kind: str, payload: bytes) -> bytes:
    name = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PublisherError("signature_invalid", "The envelope is not valid base64.") from error
