"""A served release with names of its classes, as an agent installs it."""

from pathlib import Path

from msgspec.structs import replace

from edgefleet.protocol.release import ClassNames, Quality, ReleaseManifest
from edgefleet.protocol.serving import ServedModel
from edgefleet.protocol.wire import encode
from edgefleet.security.signing import PublisherKey, manifest_digest, sign_manifest
from support.tiny_models import TinyModel, write_golden

NAMES = (*(f"digit-{one}" for one in range(8)), "digit-7", "neun: ⑨")


def with_names(model: TinyModel, folder: Path) -> ServedModel:
    """The model with a signed manifest beside it, as an agent installs it."""
    manifest = ReleaseManifest(
        model="digits",
        release="7",
        variants=(model.variant,),
        golden=write_golden(folder / "golden.npz", model),
        quality=Quality(output="probabilities", scores="probabilities"),
        created_at=1.0,
        classes=(ClassNames(output="probabilities", names=NAMES),),
    )
    envelope = sign_manifest(manifest, PublisherKey.generate())
    (folder / "manifest.json").write_bytes(encode(envelope))
    confirmed = replace(
        model.served("7"),
        manifest_path=str(folder / "manifest.json"),
        manifest_sha256=manifest_digest(envelope),
    )
    return ServedModel(model="digits", confirmed=confirmed)
