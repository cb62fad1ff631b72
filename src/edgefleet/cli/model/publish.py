"""``edgefleet model publish``: publish a release folder as a signed release."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgefleet.base.clock import SystemClock
from edgefleet.base.errors import PublisherError
from edgefleet.base.texts import counted
from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.key import key_option
from edgefleet.cli.screen import Screen, table
from edgefleet.cli.values import percent, size
from edgefleet.protocol.operator import ReleaseView
from edgefleet.protocol.serving import ProveResult
from edgefleet.protocol.wire import Wire

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from edgefleet.client.hub import HubClient
    from edgefleet.optimize.release_folder import BuiltRelease
    from edgefleet.protocol.release import ReleaseManifest
    from edgefleet.security.signing import PublicKey, PublisherKey


class VariantProof(Wire, frozen=True, kw_only=True):
    """One variant with its result on the golden set. ``proof`` is None if it was skipped."""

    profile: str
    precision: str
    size_bytes: int
    proof: ProveResult | None


class PublishReport(Wire, frozen=True, kw_only=True):
    """The result of a publish. ``sent_bytes`` excludes artifacts that the hub already had."""

    release: ReleaseView
    variants: tuple[VariantProof, ...]
    sent_bytes: int
    total_bytes: int


@verb(
    "publish",
    examples=(
        "edgefleet model publish releases/digits/release-1 --trust",
        "edgefleet model publish ./digits-2 --key ./release-team.key --json",
    ),
    exits=(Exit.FAILED,),
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--skip-proof", is_flag=True, help="Do not run the golden set here; devices still run it."
)
@click.option(
    "--changes-interface",
    is_flag=True,
    help="Publish other inputs, outputs or another task than the release that runs today.",
)
@click.option("--trust", is_flag=True, help="Let the hub accept releases signed by this key.")
@pass_invocation
def publish(
    invocation: Invocation,
    /,
    *,
    folder: Path,
    key: Path | None,
    skip_proof: bool,
    changes_interface: bool,
    trust: bool,
) -> None:
    """Prove, sign and upload a release.

    FOLDER holds release.toml, the model files and the golden set. The command runs each variant on
    the golden set, signs the manifest with your key, uploads the artifacts that the hub lacks, and
    publishes the release. Run it again to continue a broken upload. A release is immutable, and no
    device gets it before a rollout.

    Make the key with `edgefleet key new`. The hub accepts the key after one publish with --trust;
    devices trust only the keys that they were provisioned with.
    """
    from edgefleet.cli.key import default_key, load_key
    from edgefleet.optimize.release_folder import build_release

    signer = load_key(key)
    screen = invocation.screen
    now = SystemClock().now()
    built = build_release(folder, created_at=now, changes_interface=changes_interface)
    with reach(invocation) as hub:
        hub.health()
        proofs = _prove(built, screen, skip=skip_proof)
        _check_trust(hub, signer.public, key or default_key(), trust=trust)
        sent_bytes = _upload(hub, built, screen)
        view = _publish(hub, built.manifest, signer)
    answer = PublishReport(
        release=view,
        variants=proofs,
        sent_bytes=sent_bytes,
        total_bytes=sum(path.stat().st_size for path in built.files.values()),
    )
    screen.answer(answer, _lines(answer))
    if not invocation.json:
        manifest = view.manifest
        screen.note(
            f"Next: edgefleet rollout plan --model {manifest.model} --release {manifest.release}"
        )


def _prove(built: BuiltRelease, screen: Screen, *, skip: bool) -> tuple[VariantProof, ...]:
    from edgefleet.optimize.run_model import prove

    golden = built.manifest.golden
    proofs: list[VariantProof] = []
    for variant in built.manifest.variants:
        result = None
        if not skip:
            screen.note(
                f"proving {variant.profile} ({variant.precision}) "
                f"on {counted(golden.cases, 'case')}"
            )
            result = prove(built, variant)
        proofs.append(
            VariantProof(
                profile=variant.profile,
                precision=variant.precision,
                size_bytes=variant.artifact.size_bytes,
                proof=result,
            )
        )
    return tuple(proofs)


def _check_trust(hub: HubClient, public: PublicKey, key: Path, *, trust: bool) -> None:
    """Check before the upload that the hub accepts this key. Raises ``signature_invalid``."""
    from edgefleet.protocol.operator import TrustKey

    known = {entry.public_key for entry in hub.trusted().keys}
    if public.text in known:
        return
    if not trust:
        raise PublisherError(
            "signature_invalid",
            f"The hub does not accept releases signed by {public.keyid[:16]}.",
            field="key",
            hint="Add --trust so that the hub accepts this key, or sign with a key that it trusts.",
        )
    hub.trust(TrustKey(name=f"{key.stem}-{public.keyid[:8]}", public_key=public.text))


def _upload(hub: HubClient, built: BuiltRelease, screen: Screen) -> int:
    sent_bytes = 0
    with _bar(screen) as bar:
        for sha256, path in built.files.items():
            size_bytes = path.stat().st_size
            task = bar.add_task(path.name, total=size_bytes) if bar else None

            def advance(count: int, task: TaskID | None = task) -> None:
                if bar and task is not None:
                    bar.advance(task, count)

            sent = hub.upload(sha256, path, advance)
            sent_bytes += size_bytes if sent else 0
            if bar is None:
                screen.note(
                    f"{'sent' if sent else 'already there'}: {path.name} ({size(size_bytes)})"
                )
    return sent_bytes


def _publish(hub: HubClient, manifest: ReleaseManifest, signer: PublisherKey) -> ReleaseView:
    """Publish. Idempotent: the same manifest with another time is the same release."""
    from msgspec import structs

    from edgefleet.security.signing import sign_manifest

    try:
        return hub.publish(sign_manifest(manifest, signer))
    except PublisherError as error:
        if error.code != "release_exists":
            raise
        there = hub.release(manifest.model, manifest.release)
        if structs.replace(there.manifest, created_at=manifest.created_at) != manifest:
            raise
        return there


@contextmanager
def _bar(screen: Screen) -> Generator[Progress | None]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    if not screen.live:
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:
        yield bar


def _lines(done: PublishReport) -> list[str]:
    from edgefleet.protocol.release import unjudged

    manifest = done.release.manifest
    rows = [
        (
            f"{variant.profile} {variant.precision}",
            size(variant.size_bytes),
            _accuracy(variant.proof) if variant.proof else None,
            percent(variant.proof.agreement) if variant.proof else None,
            f"{variant.proof.latency_us_p50} us" if variant.proof else None,
        )
        for variant in done.variants
    ]
    head = ("variant", "size", "accuracy", "agreement", "p50 latency")
    unseen = unjudged(manifest)
    sent = f"{size(done.sent_bytes)} sent of {size(done.total_bytes)}"
    published = f"{manifest.model} {manifest.release} is published: {sent}"
    return [
        f"{published}, manifest {done.release.manifest_sha256[:16]}",
        *([unseen] if unseen else []),
        "",
        *table(head, rows),
    ]


def _accuracy(proof: ProveResult) -> str:
    return "no truth" if proof.accuracy is None else percent(proof.accuracy)


publish.params.insert(1, key_option())
