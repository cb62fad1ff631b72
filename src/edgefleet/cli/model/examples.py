"""``edgefleet model examples``: release folders to publish without a model of one's own."""

import shutil
from pathlib import Path

import click

from edgefleet.base.errors import OperatorError
from edgefleet.cli.command import verb
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.examples import FOLDER, MODELS
from edgefleet.protocol.wire import Wire


class ExamplesReport(Wire, frozen=True, kw_only=True):
    """The release folders that were written, in the order of models and releases."""

    releases: tuple[str, ...]


@verb(
    "examples",
    hub=False,
    examples=("edgefleet model examples releases", "edgefleet model examples releases --json"),
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@pass_invocation
def examples(invocation: Invocation, folder: Path) -> None:
    """Copy the example releases into a folder.

    The models digits and parity come with edgefleet. Publish their release folders to try a hub and
    a device without a model of your own, or read their release.toml before you write one. A model
    that is in FOLDER already is not overwritten.
    """
    for model in MODELS:
        if (folder / model).exists():
            raise OperatorError(
                "setting_invalid",
                f"{folder / model} exists already.",
                field="folder",
                hint="Remove it, or name a new folder.",
            )
    for model in MODELS:
        shutil.copytree(FOLDER / model, folder / model)
    releases = tuple(
        str(release) for model in MODELS for release in sorted((folder / model).glob("release-*"))
    )
    report = ExamplesReport(releases=releases)
    invocation.screen.answer(report, report.releases)
