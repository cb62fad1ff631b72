"""``edgefleet model list``, ``show`` and ``why``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from edgefleet.base.errors import OperatorError
from edgefleet.base.texts import counted, utc_text
from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import facts, table
from edgefleet.cli.values import percent, size

if TYPE_CHECKING:
    from edgefleet.protocol.operator import ReleaseView


CHANGED: Final = "changed on purpose: clients of the release before it must change"


@verb("list", examples=("edgefleet model list", "edgefleet model list --json"))
@pass_invocation
def list_(invocation: Invocation) -> None:
    """List models, their newest release, and how many online devices run them."""
    with reach(invocation) as hub:
        models = hub.models()
    rows = [
        (
            model.name,
            len(model.releases),
            model.releases[0] if model.releases else None,
            ", ".join(f"{name}: {count}" for name, count in model.devices.items()),
        )
        for model in models.models
    ]
    head = ("model", "releases", "newest", "online devices by release")
    invocation.screen.answer(models, table(head, rows))


@verb(
    "show",
    examples=(
        "edgefleet model show digits",
        "edgefleet model show digits 2 --json",
        "edgefleet model show digits 2 --lineage",
    ),
)
@click.argument("model", metavar="MODEL")
@click.argument("release", metavar="[RELEASE]", required=False)
@click.option(
    "--lineage",
    is_flag=True,
    help="Show how the variants of the release were made: sources, data, tools, judgements.",
)
@pass_invocation
def show(invocation: Invocation, model: str, release: str | None, *, lineage: bool) -> None:
    """Show a model with its releases, or one release with its variants."""
    from edgefleet.cli.model.lineage import fetch_lineage, lineage_lines

    if lineage and release is None:
        raise OperatorError("setting_invalid", "--lineage needs a release.", field="release")
    with reach(invocation) as hub:
        if release is not None and lineage:
            statement = fetch_lineage(hub, model, release)
            invocation.screen.answer(statement, lineage_lines(statement))
            return
        if release is not None:
            view = hub.release(model, release)
            invocation.screen.answer(view, _release(view))
            return
        whole = hub.model(model)
    rows = [(name, whole.devices.get(name, 0)) for name in whole.releases]
    lines = [whole.name, *table(("release", "online devices"), rows)]
    invocation.screen.answer(whole, lines)


@verb("why", examples=("edgefleet model why digits 2",))
@click.argument("model", metavar="MODEL")
@click.argument("release", metavar="RELEASE")
@pass_invocation
def why(invocation: Invocation, model: str, release: str) -> None:
    """Explain the status of a release: its devices, its rollouts, what it waits for."""
    from edgefleet.cli.wait_report import wait_lines

    with reach(invocation) as hub:
        report = hub.why_release(model, release)
    invocation.screen.answer(report, wait_lines(report))


def _release(view: ReleaseView) -> list[str]:
    from edgefleet.protocol.class_names import names_text
    from edgefleet.protocol.comparisons import comparison_text
    from edgefleet.protocol.release import unjudged

    manifest = view.manifest
    published = utc_text(view.published_at)
    rows = [
        (
            variant.profile,
            variant.runtime,
            variant.precision,
            size(variant.artifact.size_bytes),
            variant.max_batch,
            f"{variant.memory_limit_mib} MiB",
            variant.artifact.sha256[:12],
        )
        for variant in manifest.variants
    ]
    head = ("profile", "runtime", "precision", "size", "max batch", "memory", "artifact")
    golden = manifest.golden
    right = percent(golden.min_accuracy)
    return [
        *facts(
            [
                ("model", manifest.model),
                ("release", manifest.release),
                ("task", manifest.task),
                ("parent", manifest.parent),
                ("published", published),
                ("manifest", view.manifest_sha256),
                ("signed by", ", ".join(keyid[:16] for keyid in view.signed_by)),
                ("devices", view.devices),
                (
                    "golden set",
                    f"{counted(golden.cases, 'case')}, at least {right} right",
                ),
                ("compared by", comparison_text(golden.comparison)),
                *([("unjudged", unjudged(manifest))] if manifest.quality is None else []),
                *([("classes", names_text(manifest))] if manifest.classes else []),
                *([("interface", CHANGED)] if manifest.changes_interface else []),
                *([("lineage", manifest.lineage.sha256)] if manifest.lineage else []),
                ("notes", manifest.notes),
            ]
        ),
        "",
        *table(head, rows),
    ]
