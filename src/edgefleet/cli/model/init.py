"""``edgefleet model init``: a release folder from a model file and samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import click

from edgefleet.cli.command import verb
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import facts
from edgefleet.cli.values import FILE, WrongValue, percent
from edgefleet.protocol.release import Precision, Task, Variant
from edgefleet.protocol.serving import ProveResult
from edgefleet.protocol.wire import Wire


class InitReport(Wire, frozen=True, kw_only=True):
    """The folder that was written, and the proof of its release on this machine."""

    folder: str
    model: str
    release: str
    task: Task
    compared_by: str
    min_accuracy: float
    min_agreement: float
    proof: ProveResult


def _runtime_text(variant: Variant) -> str:
    if variant.runtime == "onnx":
        return f"onnxruntime {variant.min_runtime or 'any'} or newer"
    return variant.runtime


def class_names(path: Path) -> tuple[str, ...]:
    """The names in a file of classes. Raises PublisherError ``release_file_invalid``."""
    from edgefleet.protocol.class_names import CLASS_FILE_BYTES, read_names

    with path.open("rb") as file:
        return read_names(file.read(CLASS_FILE_BYTES + 1), str(path), "--classes")


class Pair(click.ParamType[tuple[str, object]]):
    """``key=value``. A value that is JSON is read as JSON, others are text."""

    name = "pair"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, object]:
        key, equals, text = str(value).partition("=")
        if not (key and equals):
            raise WrongValue(f"{value!r} is not KEY=VALUE.", "absolute=0.5", param, ctx)
        try:
            return key, json.loads(text)
        except ValueError:
            return key, text


@verb(
    "init",
    hub=False,
    examples=(
        "edgefleet model init ./wine-1 --file wine.onnx --samples wine.npz --model wine",
        "edgefleet model init ./energy-2 --file e.onnx --samples e.npz --model energy --release 2",
        "edgefleet model init ./dust-1 --file d.onnx --samples d.npz --model dust "  # noqa: ISC004
        "--task regression --compare absolute=0.5",
        "edgefleet model init ./faces-1 --file f.onnx --samples f.npz --model faces "  # noqa: ISC004
        "--task detection --profile jetson_nano --precision fp16 --json",
    ),
    exits=(Exit.FAILED,),
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--file",
    required=True,
    type=FILE,
    help="The model, ONNX or TFLite.",
)
@click.option(
    "--samples",
    required=True,
    type=FILE,
    help="Inputs X and right answers y, as numpy.savez writes them, samples first.",
)
@click.option("--model", required=True, metavar="NAME", help="The model's name.")
@click.option("--release", default="1", show_default=True, metavar="NAME", help="The version.")
@click.option(
    "--task",
    type=click.Choice(get_args(Task)),
    help="The task of the model. Default: found from the model and the samples.",
)
@click.option(
    "--output", default="", metavar="NAME", help="The output that is compared. Default: found."
)
@click.option(
    "--compare",
    multiple=True,
    type=Pair(),
    metavar="KEY=VALUE",
    help="A key of [compare], such as absolute=0.5 or scores=confidences; repeat it.",
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    default=("generic_x86",),
    show_default=True,
    metavar="NAME",
    help="The hardware class of the file; repeat it for more.",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="fp32",
    show_default=True,
    help="The precision of the file.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(1),
    help="The largest batch. Default: that of the export, else of the profile.",
)
@click.option(
    "--memory-limit-mib",
    type=click.IntRange(1),
    help="Memory that the model may use. Default: that of the profile.",
)
@click.option(
    "--cases",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    help="Samples in the golden set, at most.",
)
@click.option(
    "--classes",
    type=FILE,
    help="Text file with the names of the classes, one a line: clients may ask for them.",
)
@pass_invocation
def init(
    invocation: Invocation,
    /,
    *,
    folder: Path,
    file: Path,
    samples: Path,
    compare: tuple[tuple[str, object], ...],
    classes: Path | None,
    **wishes: Any,
) -> None:
    """Make a release folder from a model file and samples.

    FOLDER gets release.toml, the model and the golden set, ready for `edgefleet model publish`. The
    golden set has the samples, the right answers, and the answers of the model in the runtime of
    this machine. Its limits are what the model does on the samples, with a margin: edit
    release.toml to change them. A model that is no better than a constant answer is refused.

    docs/release-folder.md explains the files, docs/first-model.md a whole example.
    """
    from edgefleet.optimize.new_release import Wanted, new_release
    from edgefleet.optimize.run_model import runner
    from edgefleet.protocol.class_names import names_text
    from edgefleet.protocol.comparisons import comparison_text
    from edgefleet.protocol.release import unjudged

    names = () if classes is None else class_names(classes)
    wanted = Wanted(compare=dict(compare), classes=names, **wishes)
    built, proof = new_release(folder, file, samples, wanted, runner())
    manifest = built.manifest
    golden = manifest.golden
    answer = InitReport(
        folder=str(folder),
        model=manifest.model,
        release=manifest.release,
        task=manifest.task,
        compared_by=comparison_text(golden.comparison),
        min_accuracy=golden.min_accuracy,
        min_agreement=golden.min_agreement,
        proof=proof,
    )
    accuracy = "no right answers" if proof.accuracy is None else percent(proof.accuracy)
    rows = [
        ("release", f"{manifest.model} {manifest.release}"),
        ("task", manifest.task),
        ("compared by", answer.compared_by),
        ("cases", golden.cases),
        ("accuracy", f"{accuracy}, on devices at least {percent(golden.min_accuracy)}"),
        ("agreement", f"with this machine, on devices at least {percent(golden.min_agreement)}"),
        ("runtime", _runtime_text(manifest.variants[0])),
        *([("classes", names_text(manifest))] if manifest.classes else []),
        *([("unjudged", unjudged(manifest))] if manifest.quality is None else []),
    ]
    invocation.screen.answer(answer, [f"{folder} is ready.", *facts(rows)])
    if not invocation.json:
        invocation.screen.note(f"Next: edgefleet model publish {folder} --trust")
