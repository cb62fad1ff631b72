"""Signed releases of a tiny real model, and their upload to a hub."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgefleet.client.hub import HubClient
from edgefleet.protocol.operator import ReleaseView, TrustKey
from edgefleet.protocol.release import Golden, Quality, ReleaseManifest
from edgefleet.protocol.rollout import RolloutSpec, Verb, WaveSpec
from edgefleet.security.signing import PublisherKey, sign_manifest
from support.tiny_models import TinyModel, classifier, write_golden


@dataclass(frozen=True)
class TinyRelease:
    """A manifest and its files."""

    manifest: ReleaseManifest
    model: TinyModel
    golden_path: Path

    @property
    def files(self) -> dict[str, Path]:
        return {
            self.model.variant.artifact.sha256: self.model.path,
            self.manifest.golden.artifact.sha256: self.golden_path,
        }

    def but(self, **changes: object) -> "TinyRelease":
        """The same release with another manifest."""
        manifest = msgspec.structs.replace(self.manifest, **changes)
        return TinyRelease(manifest, self.model, self.golden_path)


def tiny_release(
    folder: Path,
    release: str = "1",
    *,
    profiles: tuple[str, ...] = ("generic_x86",),
    hidden: int = 0,
    chain: int = 0,
    description: str = "",
    seed: int | None = None,
    input_name: str = "pixels",
) -> TinyRelease:
    """A valid release of the model ``digits``. Every version has other weights, or those of ``seed``.

    ``hidden`` layers of 256 KiB each make it larger.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = classifier(
        folder / f"model-{release}.onnx",
        seed=sum(release.encode()) if seed is None else seed,
        hidden=hidden,
        chain=chain,
        description=description,
        input_name=input_name,
    )
    golden_path = folder / f"golden-{release}.npz"
    golden: Golden = write_golden(golden_path, model)
    manifest = ReleaseManifest(
        model="digits",
        release=release,
        variants=tuple(
            msgspec.structs.replace(model.variant, profile=profile) for profile in profiles
        ),
        golden=golden,
        quality=Quality(output="probabilities", scores="probabilities"),
        created_at=1.0,
    )
    return TinyRelease(manifest, model, golden_path)


def publish(client: HubClient, key: PublisherKey, release: TinyRelease) -> ReleaseView:
    """Trust the key, upload missing artifacts, publish. Raises the hub's typed error."""
    client.trust(TrustKey(name="publisher", public_key=key.public.text))
    for digest, path in release.files.items():
        client.upload(digest, path)
    return client.publish(sign_manifest(release.manifest, key))


def start_rollout(client: HubClient, release: str) -> str:
    """The id of a started rollout of a published release, whose one wave has every device.

    A hub keeps the outcomes of its own rollouts only.
    """
    planned = client.plan(
        RolloutSpec(model="digits", release=release, waves=(WaveSpec(percent=100),))
    )
    client.command(planned.id, Verb.START)
    return planned.id
