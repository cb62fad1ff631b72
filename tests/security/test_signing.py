import base64
import stat
from pathlib import Path

import msgspec
import pytest

from edgefleet.base.errors import OperatorError, PublisherError
from edgefleet.base.ids import sha256_hex
from edgefleet.protocol.release import (
    Artifact,
    Envelope,
    Golden,
    Quality,
    ReleaseManifest,
    Signature,
    TensorSpec,
    Variant,
)
from edgefleet.protocol.wire import decode, encode
from edgefleet.security.signing import PublicKey, PublisherKey, open_manifest, sign_manifest

PIXELS = TensorSpec(name="pixels", datatype="FP32", shape=(-1, 64))
MANIFEST = ReleaseManifest(
    model="digits",
    release="2",
    variants=(
        Variant(
            profile="generic_x86",
            runtime="onnx",
            precision="fp32",
            artifact=Artifact(sha256="a" * 64, size_bytes=10),
            inputs=(PIXELS,),
            outputs=(PIXELS,),
            max_batch=8,
            memory_limit_mib=512,
        ),
    ),
    golden=Golden(
        artifact=Artifact(sha256="b" * 64, size_bytes=10),
        cases=5,
        min_accuracy=0.9,
        min_agreement=0.95,
    ),
    quality=Quality(output="probabilities", scores="probabilities"),
    created_at=1.0,
)


@pytest.fixture
def key() -> PublisherKey:
    return PublisherKey.generate()


def trusted(*keys: PublisherKey) -> dict[str, PublicKey]:
    return {key.public.keyid: key.public for key in keys}


def refused(envelope: Envelope, keys: dict[str, PublicKey]) -> str:
    with pytest.raises(PublisherError) as caught:
        open_manifest(envelope, keys)
    return caught.value.code


def test_a_signed_manifest_opens_as_it_was(key: PublisherKey) -> None:
    envelope = decode(encode(sign_manifest(MANIFEST, key)), Envelope)
    opened = open_manifest(envelope, trusted(key))
    assert opened.manifest == MANIFEST
    assert opened.digest == sha256_hex(encode(MANIFEST))
    assert opened.signed_by == (key.public.keyid,)


def test_one_changed_bit_anywhere_in_the_payload_is_refused(key: PublisherKey) -> None:
    envelope = sign_manifest(MANIFEST, key)
    payload = base64.b64decode(envelope.payload)
    for at in range(0, len(payload), 7):
        changed = bytearray(payload)
        changed[at] ^= 1
        forged = msgspec.structs.replace(envelope, payload=base64.b64encode(changed).decode())
        assert refused(forged, trusted(key)) == "signature_invalid"


def test_a_key_that_is_not_trusted_signs_nothing(key: PublisherKey) -> None:
    assert refused(sign_manifest(MANIFEST, key), trusted(PublisherKey.generate())) == (
        "signature_invalid"
    )


def test_a_signature_under_another_keys_name_is_refused(key: PublisherKey) -> None:
    thief = PublisherKey.generate()
    forged = sign_manifest(MANIFEST, thief)
    renamed = msgspec.structs.replace(
        forged, signatures=(Signature(keyid=key.public.keyid, sig=forged.signatures[0].sig),)
    )
    assert refused(renamed, trusted(key)) == "signature_invalid"


def test_bytes_signed_as_another_type_are_refused(key: PublisherKey) -> None:
    envelope = msgspec.structs.replace(sign_manifest(MANIFEST, key), payloadType="text/plain")
    assert refused(envelope, trusted(key)) == "signature_invalid"


def test_an_unsigned_or_flooded_envelope_is_refused(key: PublisherKey) -> None:
    envelope = sign_manifest(MANIFEST, key)
    assert refused(msgspec.structs.replace(envelope, signatures=()), trusted(key)) == (
        "signature_invalid"
    )
    flood = msgspec.structs.replace(envelope, signatures=envelope.signatures * 9)
    assert refused(flood, trusted(key)) == "signature_invalid"
    broken = msgspec.structs.replace(envelope, payload="%%%")
    assert refused(broken, trusted(key)) == "signature_invalid"


def test_one_trusted_signature_among_strangers_is_enough(key: PublisherKey) -> None:
    mine, other = sign_manifest(MANIFEST, key), sign_manifest(MANIFEST, PublisherKey.generate())
    both = msgspec.structs.replace(mine, signatures=other.signatures + mine.signatures)
    assert open_manifest(both, trusted(key)).signed_by == (key.public.keyid,)


def test_a_key_file_is_for_its_owner_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "publisher.key"
    key = PublisherKey.generate()
    key.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PublisherKey.load(path).public == key.public
    with pytest.raises(FileExistsError):
        PublisherKey.generate().save(path)


def test_what_is_no_key_says_so(tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as missing:
        PublisherKey.load(tmp_path / "none")
    assert missing.value.code == "setting_invalid"
    (tmp_path / "bad").write_text("hello")
    with pytest.raises(OperatorError) as bad:
        PublisherKey.load(tmp_path / "bad")
    assert bad.value.code == "setting_invalid"
    with pytest.raises(OperatorError):
        PublicKey.from_text("AAAA")
