"""The names of the classes of a release, on the device: read from its signed manifest."""

import base64
import binascii
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from edgefleet.base.errors import EdgefleetError
from edgefleet.protocol import release
from edgefleet.protocol.serving import ServedRelease
from edgefleet.protocol.wire import Wire, decode
from edgefleet.serving.limits import MANIFEST_BYTES

ClassNames = Mapping[str, tuple[str, ...]]
"""The names of the classes by output, in the order of the scores."""


class _Named(Wire, frozen=True, kw_only=True):
    """The part of a manifest that is read here."""

    classes: tuple[release.ClassNames, ...] = ()


def class_names(wanted: ServedRelease) -> ClassNames:
    """The names in the manifest of a release. Empty if it has none, or cannot be read.

    The agent has verified the signature and keeps the digest of the payload. A release is served
    without a manifest, too: a file of a confirmed release that is damaged later stops no answer.
    """
    if not wanted.manifest_path:
        return {}
    try:
        with Path(wanted.manifest_path).open("rb") as file:
            envelope = decode(file.read(MANIFEST_BYTES), release.Envelope)
        payload = base64.b64decode(envelope.payload, validate=True)
        if sha256(payload).hexdigest() != wanted.manifest_sha256:
            return {}
        found = decode(payload, _Named)
    except (OSError, EdgefleetError, binascii.Error):
        return {}
    return {one.output: one.names for one in found.classes}
