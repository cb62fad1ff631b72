"""Publishing: every check comes first, and a rejected release changes nothing."""

import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgefleet.base.errors import EdgefleetError
from edgefleet.base.network import HttpLink
from edgefleet.client.hub import HubClient
from edgefleet.protocol.operator import TrustKey
from edgefleet.protocol.release import Artifact, Envelope, TensorSpec
from edgefleet.protocol.wire import Problem, decode, encode
from edgefleet.security.signing import PublisherKey, sign_manifest
from support import lineages
from support.hub_process import HubProcess, running_hub
from support.raw_device import RawDevice, enrolled
from support.tiny_models import artifact_of
from support.tiny_releases import TinyRelease, publish, tiny_release

MAX_ARTIFACT_BYTES = 1 << 20


@dataclass
class Publisher:
    hub: HubProcess
    client: HubClient
    key: PublisherKey
    folder: Path

    def files(self) -> set[str]:
        blobs = self.hub.data_dir / "blobs"
        return {path.name for path in blobs.rglob("*") if path.is_file()}

    def everything(self) -> tuple[Any, ...]:
        """All state that publishing can change."""
        return self.client.models(), self.client.audit(), self.files()


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    folder = tmp_path_factory.mktemp("publish")
    with running_hub(folder / "data", max_artifact_bytes=MAX_ARTIFACT_BYTES) as hub:
        key = PublisherKey.generate()
        client = hub.client()
        client.trust(TrustKey(name="publisher", public_key=key.public.text))
        yield Publisher(hub, client, key, folder)


@pytest.fixture
def release(publisher: Publisher, request: pytest.FixtureRequest) -> TinyRelease:
    """A valid release with its own version."""
    digits = sha256(request.node.name.encode()).hexdigest()[:8]
    return tiny_release(publisher.folder / digits, digits)


def variant_with(release: TinyRelease, **changes: Any) -> TinyRelease:
    changed = msgspec.structs.replace(release.manifest.variants[0], **changes)
    return release.but(variants=(changed,))


def upload(publisher: Publisher, release: TinyRelease) -> None:
    for digest, path in release.files.items():
        publisher.client.upload(digest, path)


def test_a_good_release_is_published_and_shown(publisher: Publisher, release: TinyRelease) -> None:
    shown = publish(publisher.client, publisher.key, release)
    assert shown.manifest == release.manifest
    assert shown.signed_by == (publisher.key.public.keyid,)
    assert publisher.client.release("digits", release.manifest.release) == shown
    assert publisher.client.model("digits").releases[0] == release.manifest.release
    assert publisher.client.audit().entries[0].action == "publish"


def test_the_very_same_release_may_come_again(publisher: Publisher, release: TinyRelease) -> None:
    first = publish(publisher.client, publisher.key, release)
    before = publisher.client.audit().entries
    assert publisher.client.publish(sign_manifest(release.manifest, publisher.key)) == first
    assert publisher.client.audit().entries == before


def test_two_precisions_of_one_file_are_refused(publisher: Publisher, release: TinyRelease) -> None:
    (variant,) = release.manifest.variants
    other = msgspec.structs.replace(variant, profile="jetson_nano", precision="fp16")
    twins = release.but(variants=(variant, other))
    upload(publisher, twins)
    with pytest.raises(EdgefleetError, match="byte-identical to the fp32 file") as caught:
        publisher.client.publish(sign_manifest(twins.manifest, publisher.key))
    assert (caught.value.code, caught.value.field) == (
        "release_file_invalid",
        "variants[1].precision",
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"task": "regression"}, "golden.comparison"),
        ({"quality": None}, "quality"),
        ({"task": "regression", "quality": None}, "golden.comparison"),
    ],
)
def test_a_task_that_contradicts_its_comparison_is_refused(
    publisher: Publisher, release: TinyRelease, changes: dict[str, Any], field: str
) -> None:
    wrong = release.but(**changes)
    upload(publisher, wrong)
    with pytest.raises(EdgefleetError) as caught:
        publisher.client.publish(sign_manifest(wrong.manifest, publisher.key))
    assert (caught.value.code, caught.value.field) == ("release_file_invalid", field)


def test_a_release_is_immutable(publisher: Publisher, release: TinyRelease) -> None:
    publish(publisher.client, publisher.key, release)
    before = publisher.everything()
    other = release.but(notes="the same version, but other words")
    with pytest.raises(EdgefleetError, match="release_exists"):
        publisher.client.publish(sign_manifest(other.manifest, publisher.key))
    assert publisher.everything() == before


def no_golden(release: TinyRelease) -> TinyRelease:
    return release.but(
        golden=msgspec.structs.replace(
            release.manifest.golden, artifact=Artifact(sha256="0" * 64, size_bytes=7)
        )
    )


def more_cases(release: TinyRelease) -> TinyRelease:
    return release.but(golden=msgspec.structs.replace(release.manifest.golden, cases=41))


def other_size(release: TinyRelease) -> TinyRelease:
    artifact = release.manifest.variants[0].artifact
    return variant_with(release, artifact=msgspec.structs.replace(artifact, size_bytes=1))


def twice(release: TinyRelease) -> TinyRelease:
    return release.but(variants=release.manifest.variants * 2)


def other_input(release: TinyRelease) -> TinyRelease:
    spec = TensorSpec(name="pixels", datatype="FP16", shape=(-1, 64))
    return variant_with(release, inputs=(spec,))


def other_output(release: TinyRelease) -> TinyRelease:
    spec = TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 11))
    return variant_with(release, outputs=(spec,))


@pytest.mark.parametrize(
    ("spoil", "code", "field"),
    [
        (no_golden, "release_incomplete", "golden.artifact"),
        (more_cases, "golden_mismatch", "golden.cases"),
        (other_size, "release_file_invalid", "variants[0].artifact.size_bytes"),
        (twice, "release_file_invalid", "variants[1].profile"),
        (other_input, "release_file_invalid", "variants[0].inputs"),
        (other_output, "release_file_invalid", "variants[0].outputs"),
        (lambda r: r.but(variants=()), "release_file_invalid", "variants"),
        (lambda r: r.but(model="../up"), "name_invalid", "model"),
        (lambda r: r.but(release="a b"), "name_invalid", "release"),
        (lambda r: variant_with(r, profile=""), "name_invalid", "variants[0].profile"),
        (lambda r: variant_with(r, max_batch=0), "release_file_invalid", "variants[0].max_batch"),
        (
            lambda r: variant_with(r, artifact=Artifact(sha256="../../x", size_bytes=1)),
            "release_file_invalid",
            "variants[0].artifact.sha256",
        ),
    ],
)
def test_a_manifest_that_does_not_hold_is_refused(
    publisher: Publisher,
    release: TinyRelease,
    spoil: Callable[[TinyRelease], TinyRelease],
    code: str,
    field: str,
) -> None:
    upload(publisher, release)
    before = publisher.everything()
    with pytest.raises(EdgefleetError) as refused:
        publisher.client.publish(sign_manifest(spoil(release).manifest, publisher.key))
    assert (refused.value.code, refused.value.field) == (code, field)
    assert refused.value.hint
    assert publisher.everything() == before


def test_a_release_keeps_the_lineage_of_its_variants(
    publisher: Publisher, release: TinyRelease
) -> None:
    variant = release.manifest.variants[0].artifact.sha256
    for subject, accepted in ((lineages.digest("other"), False), (variant, True)):
        document = encode(lineages.statement([subject]))
        named = Artifact(sha256=sha256(document).hexdigest(), size_bytes=len(document))
        path = publisher.folder / named.sha256
        path.write_bytes(document)
        upload(publisher, release)
        envelope = sign_manifest(release.but(lineage=named).manifest, publisher.key)
        with pytest.raises(EdgefleetError) as missing:
            publisher.client.publish(envelope)
        assert (missing.value.code, missing.value.field) == ("release_incomplete", "lineage")
        publisher.client.upload(named.sha256, path)
        if not accepted:
            with pytest.raises(EdgefleetError, match="None of its subjects is the variant"):
                publisher.client.publish(envelope)
            continue
        assert publisher.client.publish(envelope).manifest.lineage == named
        assert b"".join(publisher.client.download(named.sha256)) == document


def onnx_cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda _data: b"\x89PNG\r\n\x1a\n" + b"pixels" * 100, "not_a_model"),
        (onnx_cut, "model_truncated"),
        (lambda _data: pickle.dumps({"weights": [1.0, 2.0]}), "model_is_pickle"),
    ],
)
def test_a_file_that_is_no_model_is_refused(
    publisher: Publisher, release: TinyRelease, spoil: Callable[[bytes], bytes], code: str
) -> None:
    path = release.model.path
    path.write_bytes(spoil(path.read_bytes()))
    artifact = artifact_of(path)
    publisher.client.upload(artifact.sha256, path)
    publisher.client.upload(release.manifest.golden.artifact.sha256, release.golden_path)
    before = publisher.everything()
    spoilt = variant_with(release, artifact=artifact)
    with pytest.raises(EdgefleetError) as refused:
        publisher.client.publish(sign_manifest(spoilt.manifest, publisher.key))
    assert (refused.value.code, refused.value.field) == (code, "variants[0].artifact")
    assert publisher.everything() == before


def test_a_golden_set_for_other_inputs_is_refused(
    publisher: Publisher, release: TinyRelease
) -> None:
    arrays = dict(np.load(release.golden_path))
    arrays["input.image"] = arrays.pop("input.pixels")
    np.savez(release.golden_path, **arrays)
    golden = msgspec.structs.replace(
        release.manifest.golden, artifact=artifact_of(release.golden_path)
    )
    spoilt = release.but(golden=golden)
    upload(publisher, spoilt)
    before = publisher.everything()
    with pytest.raises(EdgefleetError, match="golden_mismatch"):
        publisher.client.publish(sign_manifest(spoilt.manifest, publisher.key))
    assert publisher.everything() == before


@pytest.mark.parametrize("wrong", ["stranger", "tampered", "unsigned", "other_type"])
def test_a_wrong_signature_is_refused(
    publisher: Publisher, release: TinyRelease, wrong: str
) -> None:
    upload(publisher, release)
    before = publisher.everything()
    good = sign_manifest(release.manifest, publisher.key)
    other = sign_manifest(release.but(notes="changed").manifest, publisher.key)
    envelope: Envelope = {
        "stranger": sign_manifest(release.manifest, PublisherKey.generate()),
        "tampered": msgspec.structs.replace(good, payload=other.payload),
        "unsigned": msgspec.structs.replace(good, signatures=()),
        "other_type": msgspec.structs.replace(good, payloadType="text/plain"),
    }[wrong]
    with pytest.raises(EdgefleetError, match="signature_invalid"):
        publisher.client.publish(envelope)
    assert publisher.everything() == before


# Artifacts over HTTP.


def put(publisher: Publisher, digest: str, data: bytes) -> Problem | None:
    link = HttpLink(publisher.hub.url)
    answer = link.request(
        "PUT",
        f"/api/v1/artifacts/{digest}",
        headers={"Authorization": f"Bearer {publisher.hub.token}"},
        body=data,
    )
    link.close()
    return None if answer.status == 200 else decode(answer.body, Problem)


@pytest.mark.parametrize(
    ("digest", "data", "code"),
    [
        (sha256(b"one").hexdigest(), b"two", "digest_mismatch"),
        (sha256(b"").hexdigest(), b"x" * (MAX_ARTIFACT_BYTES + 1), "artifact_too_large"),
        ("A" * 64, b"x", "bad_request"),
        ("..", b"x", "bad_request"),
    ],
)
def test_an_upload_that_does_not_hold_leaves_nothing(
    publisher: Publisher, digest: str, data: bytes, code: str
) -> None:
    before = publisher.everything()
    problem = put(publisher, digest, data)
    assert problem is not None
    assert problem.code == code
    assert publisher.everything() == before


def test_a_chunked_upload_above_the_limit_is_refused(publisher: Publisher) -> None:
    link = HttpLink(publisher.hub.url)
    before = publisher.everything()
    answer = link.request(
        "PUT",
        f"/api/v1/artifacts/{'a' * 64}",
        headers={"Authorization": f"Bearer {publisher.hub.token}"},
        body=iter([b"x" * 65_536] * (MAX_ARTIFACT_BYTES // 65_536 + 1)),
    )
    link.close()
    assert decode(answer.body, Problem).code == "artifact_too_large"
    assert publisher.everything() == before


@pytest.fixture(scope="module")
def device(publisher: Publisher) -> RawDevice:
    return enrolled(publisher.client, publisher.hub.url, 1)[0]


DATA = bytes(range(256)) * 40
DIGEST = sha256(DATA).hexdigest()


@pytest.mark.parametrize(
    ("header", "status", "expected"),
    [
        (None, 200, DATA),
        ("bytes=0-9", 206, DATA[:10]),
        ("bytes=100-", 206, DATA[100:]),
        ("bytes=-7", 206, DATA[-7:]),
        ("bytes=0-999999", 206, DATA),
        (f"bytes={len(DATA) - 1}-", 206, DATA[-1:]),
        ("bytes=9-3", 200, DATA),  # no range: RFC 9110, 14.1.1
        ("bytes=0-1,4-5", 200, DATA),
        ("lines=0-1", 200, DATA),
        (f"bytes={len(DATA)}-", 416, None),
        ("bytes=-0", 416, None),
    ],
)
def test_devices_fetch_artifacts_in_ranges(
    publisher: Publisher,
    device: RawDevice,
    header: str | None,
    status: int,
    expected: bytes | None,
) -> None:
    assert put(publisher, DIGEST, DATA) is None
    link = HttpLink(publisher.hub.url)
    headers = device.headers | ({"Range": header} if header else {})
    answer = link.request("GET", f"/device/v1/artifacts/{DIGEST}", headers=headers)
    link.close()
    assert answer.status == status
    if expected is None:
        assert decode(answer.body, Problem).code == "range_invalid"
        assert answer.headers["content-range"] == f"bytes */{len(DATA)}"
        return
    assert answer.body == expected
    assert answer.headers["etag"] == f'"{DIGEST}"'
    if status == 206:
        start = DATA.index(expected) if len(expected) > 1 else len(DATA) - 1
        stop = start + len(expected) - 1
        if header == "bytes=-7":
            start, stop = len(DATA) - 7, len(DATA) - 1
        assert answer.headers["content-range"] == f"bytes {start}-{stop}/{len(DATA)}"


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("HEAD", {}, 200),
        ("GET", {"If-None-Match": f'"{DIGEST}"'}, 304),
        ("GET", {"Range": "bytes=0-1", "If-Range": '"another"'}, 200),
        ("GET", {"Range": "bytes=0-1", "If-Range": f'"{DIGEST}"'}, 206),
    ],
)
def test_an_artifact_is_asked_for_on_conditions(
    publisher: Publisher, method: str, headers: dict[str, str], status: int
) -> None:
    assert put(publisher, DIGEST, DATA) is None
    link = HttpLink(publisher.hub.url)
    token = {"Authorization": f"Bearer {publisher.hub.token}"}
    answer = link.request(method, f"/api/v1/artifacts/{DIGEST}", headers=headers | token)
    link.close()
    assert answer.status == status
    assert answer.headers["etag"] == f'"{DIGEST}"'
    assert len(answer.body) == {200: len(DATA) if method == "GET" else 0, 206: 2, 304: 0}[status]
    if method == "HEAD":
        assert answer.headers["content-length"] == str(len(DATA))


def test_devices_fetch_the_manifest_as_it_was_signed(
    publisher: Publisher, device: RawDevice, release: TinyRelease
) -> None:
    shown = publish(publisher.client, publisher.key, release)
    link = HttpLink(publisher.hub.url)
    path = f"/device/v1/manifests/{shown.manifest_sha256}"
    answer = link.request("GET", path, headers=device.headers)
    missing = link.request("GET", f"/device/v1/manifests/{'0' * 64}", headers=device.headers)
    link.close()
    assert decode(answer.body, Envelope) == sign_manifest(release.manifest, publisher.key)
    assert (missing.status, decode(missing.body, Problem).code) == (404, "not_found")


@pytest.mark.long
@pytest.mark.parametrize("killed", ["hub", "client"])
def test_an_upload_continues_after_a_kill(tmp_path: Path, killed: str) -> None:
    data = os.urandom(12 << 20)
    path, digest = tmp_path / "model.bin", sha256(data).hexdigest()
    path.write_bytes(data)
    with running_hub(tmp_path / "data") as hub:
        port = int(hub.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as begun:
            begun.sendall(
                f"PUT /api/v1/artifacts/{digest} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "
                f"{hub.token}\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            )
            begun.sendall(data[: 6 << 20])
            part = hub.data_dir / "blobs" / "incoming" / f"{digest}.part"
            while not part.exists() or part.stat().st_size < 5 << 20:
                time.sleep(0.01)
            if killed == "hub":
                hub.kill()
                hub.start()
        sent: list[int] = []
        client = hub.client()
        assert client.upload(digest, path, sent.append)
        # While the hub has not noticed that the client is gone, the upload is a whole one.
        assert sent[0] >= 5 << 20 or killed == "client"
        assert sum(sent) == len(data)
        assert not client.upload(digest, path)  # one HEAD
        stored = hub.data_dir / "blobs" / digest[:2] / digest
        assert stored.read_bytes() == data
        assert list(part.parent.iterdir()) == []
