"""``edgefleet model optimize``: the best variant of a model for each profile, as a release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from edgefleet.cli.command import verb
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.model.init import Pair, class_names
from edgefleet.cli.screen import table
from edgefleet.cli.values import DURATION, FILE, RATE, size
from edgefleet.protocol.release import Task

if TYPE_CHECKING:
    from edgefleet.optimize.judgement import Judgement
    from edgefleet.optimize.measurement import Measurement
    from edgefleet.optimize.outcome import Outcome, ProfileOutcome

_DATA = click.Path(path_type=Path, exists=True)


class Model(click.Path):
    """A file or folder that exists, a function of the publisher's code, or an MLflow address."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from edgefleet.optimize.inputs.mlflow_address import is_mlflow_address
        from edgefleet.optimize.torch_steps.reference import is_reference

        is_name = is_reference(str(value)) or is_mlflow_address(str(value))
        return value if is_name else super().convert(value, param, ctx)


@verb(
    "optimize",
    hub=False,
    examples=(
        "edgefleet model optimize cnn.onnx --profile generic_x86 --calibration train.npz "  # noqa: ISC004
        "--evaluate test.npz --model digits --release 2 --out ./digits-2",
        "edgefleet model optimize cnn.onnx cnn.tflite --profile jetson_nano "  # noqa: ISC004
        "--profile raspberry_pi --calibration train.npz --evaluate test.npz --model digits "
        "--release 3 --out ./digits-3 --budget 30m --baseline ./digits-2 --json",
        "edgefleet model optimize models:/digits@champion --tracking-uri http://mlflow:5000 "  # noqa: ISC004
        "--profile generic_x86 --calibration ./train --evaluate ./test --model digits "
        "--release 4 --out ./digits-4 --preprocess size=28x28 --preprocess mean=0.5 "
        "--preprocess std=0.5 --preprocess layout=nchw --preprocess color=grey",
        "edgefleet model optimize net.py:trained --train net.py:train --python torch/bin/python "  # noqa: ISC004
        "--profile generic_x86 --calibration train.npz --evaluate test.npz --model digits "
        "--release 4 --out ./digits-4 --budget 2h",
    ),
    exits=(Exit.FAILED,),
)
@click.argument(
    "models",
    nargs=-1,
    required=True,
    metavar="MODEL...",
    type=Model(path_type=Path, exists=True),
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A hardware class of `model profiles`; repeat it for more.",
)
@click.option(
    "--profiles",
    "own_profiles",
    type=click.Path(path_type=Path, exists=True),
    metavar="FOLDER",
    help="A folder of profiles of your own, or one file, as for `model profiles`.",
)
@click.option(
    "--calibration",
    required=True,
    type=_DATA,
    help="Inputs from which ranges are found: 100 to 500 cases of the training data, as .npz or a "
    "folder of images.",
)
@click.option(
    "--evaluate",
    required=True,
    type=_DATA,
    help="Inputs X and right answers y that were not trained on, as .npz; or a folder that has a "
    "folder of images for each class.",
)
@click.option("--model", required=True, metavar="NAME", help="The model's name.")
@click.option("--release", required=True, metavar="NAME", help="The version.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The new release folder.",
)
@click.option("--task", type=click.Choice(get_args(Task)), help="The task. Default: found.")
@click.option("--output", default="", metavar="NAME", help="The output that is judged.")
@click.option(
    "--keep",
    type=RATE,
    default="0.99",
    show_default=True,
    help="The least share of the metric that a variant keeps.",
)
@click.option(
    "--budget",
    "budget_s",
    type=DURATION,
    default="10m",
    show_default=True,
    help="Time for the search. Run the command again to continue.",
)
@click.option("--latency", "latency_s", type=DURATION, help="The most for a batch, such as 20ms.")
@click.option(
    "--size",
    "size_bytes",
    type=click.IntRange(1),
    metavar="BYTES",
    help="The largest file of a variant.",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The release folder that devices have, for the size of the update.",
)
@click.option(
    "--compare",
    multiple=True,
    type=Pair(),
    metavar="KEY=VALUE",
    help="A key of [compare], such as scores=confidences; repeat it.",
)
@click.option(
    "--classes",
    type=FILE,
    help="Text file with the names of the classes, one a line: clients may ask for them.",
)
@click.option(
    "--preprocess",
    multiple=True,
    type=Pair(),
    metavar="KEY=VALUE",
    help="Of images: size=224x224, mean=0.5,0.5,0.5, std=0.5,0.5,0.5, layout=nchw; repeat it.",
)
@click.option(
    "--tracking-uri",
    default="",
    envvar="MLFLOW_TRACKING_URI",
    metavar="URL",
    help="The MLflow server of a MODEL such as models:/NAME/VERSION.",
)
@click.option(
    "--converter-python",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    envvar="EDGEFLEET_CONVERTER_PYTHON",
    help="A Python with the packages that convert XGBoost, LightGBM, Keras or TensorFlow models.",
)
@click.option("--metric", default="", metavar="NAME", help="Such as f1. Default: by the task.")
@click.option(
    "--train",
    default="",
    metavar="FUNCTION",
    help="Trains pruned models and students: FILE.py:function or package.module:function.",
)
@click.option(
    "--student",
    "students",
    multiple=True,
    metavar="FUNCTION",
    help="Returns a smaller model to be taught; repeat it. Default: a quarter of the channels.",
)
@click.option(
    "--python",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The Python that has PyTorch. Default: that of this program.",
)
@click.option(
    "--threads", type=click.IntRange(1, 256), help="Threads of a run. Default: by the profile."
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the report here, too: also if no variant qualifies.",
)
@click.option("--plots", is_flag=True, help="Draw the plots of report.html here, too.")
@click.option(
    "--field",
    type=FILE,
    help="The answer of `edgefleet model field MODEL --json`: the fleet's figures rank, too.",
)
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="The cache of builds and measurements. Default: ~/.cache/edgefleet/optimize.",
)
@pass_invocation
def optimize(
    invocation: Invocation,
    /,
    *,
    models: tuple[Path | str, ...],
    profiles: tuple[str, ...],
    compare: tuple[tuple[str, object], ...],
    preprocess: tuple[tuple[str, object], ...],
    classes: Path | None,
    plots: bool,
    **wishes: Any,
) -> int | None:
    """Find the best variant of a float model for each profile.

    MODEL is an ONNX file, a TFLite file, or both of the same model; a PyTorch model: a file, or
    FILE.py:function, the function that returns it; a model of XGBoost, LightGBM, Keras or
    TensorFlow, an MLflow folder or an address such as models:/NAME/VERSION
    (docs/optimize-inputs.md). Each candidate is built, run on
    the evaluation data in its own runtime at the batch of the profile, and judged: it must keep
    the accuracy, be inside the limits of the profile, and be smaller or faster. The variant with
    the greatest gain (times smaller by times faster) goes into a release folder, ready for
    `edgefleet model publish`. The exit code is 1 if no variant qualifies for a profile: the table
    says why.

    The search continues from its cache: a command that was stopped may be repeated.

    docs/optimize.md explains the verdicts.
    """
    from edgefleet.optimize import optimize as run
    from edgefleet.optimize.preprocessing import preprocessing_of

    outcome = run(
        models,
        profiles=profiles,
        compare=dict(compare),
        classes=() if classes is None else class_names(classes),
        images=preprocessing_of(dict(preprocess)) if preprocess else None,
        progress=invocation.screen.note,
        **wishes,
    )
    lines = _lines(outcome, wishes["keep"], plots=plots)
    invocation.screen.answer(outcome.without_cases(), lines)
    if outcome.folder and not invocation.json:
        invocation.screen.note(f"Next: edgefleet model publish {outcome.folder} --trust")
    return None if outcome.qualified else Exit.FAILED


def _lines(outcome: Outcome, keep: float, *, plots: bool) -> list[str]:
    from edgefleet.optimize.evidence import profile_report
    from edgefleet.optimize.report import terminal
    from edgefleet.optimize.report.decisions import verdict

    reports = [profile_report(one, keep, outcome.labels) for one in outcome.profiles]
    lines = [f"{one.profile}: {verdict(one)}" for one in reports]
    for profile, report in zip(outcome.profiles, reports, strict=True):
        lines += ["", f"{profile.profile}, batch {profile.baseline.batch}:", *_table(profile)]
        lines += terminal.plots(report) if plots else ()
    lines.append("")
    where = f"{outcome.folder} is ready." if outcome.folder else "No release folder was written."
    return [*lines, where]


def _table(profile: ProfileOutcome) -> list[str]:
    head = ("candidate", "size", "smaller", "transfer", "p50", "faster", "memory", "metric",
            "difference", "verdict")  # fmt: skip
    first = profile.baseline
    rows: list[tuple[object, ...]] = [(*_facts(first, "1.00x", "1.00x"), "", "baseline")]
    for tried in profile.tried:
        judged = tried.judgement
        if judged.candidate is None:
            rows.append((tried.recipe.name, *[None] * 8, _verdict(judged, chosen=False)))
            continue
        smaller, faster = f"{judged.smaller:.2f}x", f"{judged.faster:.2f}x"
        chosen = judged == profile.chosen
        rows.append(
            (
                *_facts(judged.candidate, smaller, faster),
                _difference(judged),
                _verdict(judged, chosen=chosen),
            )
        )
    rows += [
        (recipe.name, *[None] * 8, "not tried: the time was over") for recipe in profile.skipped
    ]
    reasons = [
        f"  {tried.recipe.name}: {tried.judgement.text}"
        for tried in profile.tried
        if tried.judgement.refused is not None
    ]
    return [*table(head, rows), *(["", "Refused:", *reasons] if reasons else [])]


def _facts(one: Measurement, smaller: str, faster: str) -> tuple[object, ...]:
    sent = one.compressed_bytes if one.delta_bytes is None else one.delta_bytes
    return (
        one.recipe.name,
        size(one.size_bytes),
        smaller,
        size(sent),
        f"{one.latency.p50_s * 1_000:.3f} ms",
        faster,
        size(one.peak_memory_bytes),
        f"{one.value:.4f}",
    )


def _difference(judged: Judgement) -> str:
    if judged.accuracy is None:
        return "-"
    interval = judged.accuracy.difference
    return f"{interval.low:+.4f} to {interval.high:+.4f}"


def _verdict(judged: Judgement, *, chosen: bool) -> str:
    if judged.refused is not None:
        return f"refused: {judged.refused}"
    return "chosen" if chosen else "qualifies"
