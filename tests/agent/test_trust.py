"""The device's own keys decide what it runs."""

import base64
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgefleet.agent.trust import Trust
from edgefleet.base.errors import DeviceError, OperatorError, PublisherError
from edgefleet.protocol.release import MANIFEST_TYPE, Envelope, Signature
from edgefleet.protocol.wire import encode
from edgefleet.security.signing import PublisherKey, manifest_digest, sign_manifest
from support.agent_world import manifest

KEY = PublisherKey.generate()
ENVELOPE = sign_manifest(manifest("1"), KEY)


def test_a_manifest_by_a_trusted_key_opens(tmp_path: Path) -> None:
    file = tmp_path / "trust"
    other = PublisherKey.generate().public.text
    file.write_text(f"# ours\n{other}  # the old key\n\n{KEY.public.text}\n")
    assert Trust.load(file).open(encode(ENVELOPE)) == (manifest_digest(ENVELOPE), manifest("1"))


def test_a_manifest_by_a_stranger_does_not() -> None:
    stranger = Trust((PublisherKey.generate().public.text,))
    with pytest.raises(PublisherError) as refused:
        stranger.open(encode(ENVELOPE))
    assert refused.value.code == "signature_invalid"


def test_something_that_is_no_envelope_is_refused() -> None:
    with pytest.raises(PublisherError) as refused:
        Trust((KEY.public.text,)).open(b"<html>")
    assert refused.value.code == "signature_invalid"


@pytest.mark.parametrize("text", ["", "# nothing\n", "c2hvcnQ=\n", "no base64!\n"])
def test_a_file_without_a_key_is_a_wrong_setting(tmp_path: Path, text: str) -> None:
    file = tmp_path / "trust"
    file.write_text(text)
    with pytest.raises(OperatorError) as wrong:
        Trust.load(file)
    assert (wrong.value.code, wrong.value.field) == ("setting_invalid", "trust")


def test_a_file_that_is_not_there_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as wrong:
        Trust.load(tmp_path / "none")
    assert wrong.value.field == "trust"


def test_a_manifest_with_a_datatype_of_a_later_version_is_refused_with_its_name() -> None:
    later = manifest("1")
    (variant,) = later.variants
    tensor = replace(variant.inputs[0], datatype="FP4")  # type: ignore[arg-type] # none of today's
    variant = replace(variant, inputs=(tensor,))
    envelope = sign_manifest(replace(later, variants=(variant,)), KEY)
    with pytest.raises(DeviceError, match="FP4") as refused:
        Trust((KEY.public.text,)).open(encode(envelope))
    assert refused.value.code == "manifest_unreadable"
    assert "Update the agent" in refused.value.hint


def test_a_signed_envelope_of_a_later_type_is_refused_with_its_type() -> None:
    later, payload = MANIFEST_TYPE.replace("v1", "v2"), b'{"format":2}'
    message = b"DSSEv1 %d %s %d %s" % (len(later), later.encode(), len(payload), payload)
    signature = Signature(keyid=KEY.public.keyid, sig=base64.b64encode(KEY.sign(message)).decode())
    envelope = Envelope(
        payloadType=later, payload=base64.b64encode(payload).decode(), signatures=(signature,)
    )
    with pytest.raises(DeviceError, match="v2") as refused:
        Trust((KEY.public.text,)).open(encode(envelope))
    assert refused.value.code == "manifest_unreadable"
    stranger = Trust((PublisherKey.generate().public.text,))
    with pytest.raises(PublisherError) as forged:
        stranger.open(encode(envelope))
    assert forged.value.code == "signature_invalid"
