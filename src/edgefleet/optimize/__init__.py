"""From trained model files to a signed release.

``optimize`` is the same as ``edgefleet model optimize``. docs/optimize.md is the user's page.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgefleet.optimize.data_files import Data
    from edgefleet.optimize.evaluation_data import Arrays
    from edgefleet.optimize.outcome import Outcome
    from edgefleet.optimize.preprocessing import Preprocessing
    from edgefleet.optimize.recipe import Recipe
    from edgefleet.optimize.source_model import Trainer
    from edgefleet.protocol.release import Task

__all__ = ["optimize"]


def _silent(_line: str) -> None:
    """The default: no progress is shown."""


def optimize(
    models: "str | Path | Sequence[str | Path]",
    *,
    profiles: Sequence[str],
    calibration: "Data",
    evaluate: "Data",
    model: str,
    release: str,
    out: Path,
    task: "Task | None" = None,
    output: str = "",
    keep: float = 0.99,
    budget_s: float = 600.0,
    latency_s: float | None = None,
    size_bytes: int | None = None,
    baseline: Path | None = None,
    cache_dir: Path | None = None,
    compare: Mapping[str, object] | None = None,
    classes: Sequence[str] = (),
    threads: int | None = None,
    metric: "str | Callable[[Arrays, Arrays], object]" = "",
    trainer: "Trainer | None" = None,
    train: str = "",
    students: Sequence[str] = (),
    python: Path | None = None,
    recipes: "Sequence[Recipe]" = (),
    images: "Preprocessing | None" = None,
    tracking_uri: str = "",
    converter_python: Path | None = None,
    field: Path | None = None,
    report: Path | None = None,
    own_profiles: Path | None = None,
    progress: Callable[[str], None] = _silent,
) -> "Outcome":
    """Find the best variant of a float model for each profile, and write a release folder.

    ``models`` is a file, a folder or an address of MLflow (docs/optimize-inputs.md), or an ONNX
    file and a TFLite file of the same model; or a PyTorch model as a file or as
    ``FILE.py:function``, which the Python at ``python`` exports. ``train`` names its training
    function, and ``students`` the functions of models that it may teach. ``calibration`` and
    ``evaluate`` are ``.npz`` files as for ``model init --samples``, folders of images (then
    ``images`` is their preprocessing), arrays by name, or functions that return those or an
    iterable of batches.

    A variant keeps at least the share ``keep`` of the metric. ``budget_s`` is the time in seconds,
    divided among the profiles; a search that ends early continues from its cache when it is called
    again. ``latency_s`` and ``size_bytes`` are limits of a variant; the memory limit is that of the
    profile. ``baseline`` is the release folder that devices have now, for the size of an update.
    ``compare`` has keys of the table [compare] of release.toml. ``classes`` are the names of the
    classes of the output, in the order of its scores. ``threads`` are those of a run;
    None: those of the profile. ``metric`` is the name of a metric of the task, or a function of
    outputs and truths. ``trainer`` allows recipes that change the weights. ``recipes`` replace the
    table of ``candidates``. ``own_profiles`` is a folder or a file of profiles, besides those of
    ``model profiles``. ``field`` is the answer of ``edgefleet model field --json``: latency and
    memory that the fleet measured for the recipes of releases before, by which candidates are
    ranked again. ``report`` is a file for the report, which is written there also if no variant
    qualifies.

    ``tracking_uri`` is the MLflow server. ``converter_python`` is a Python with the packages that
    convert XGBoost, LightGBM, Keras and TensorFlow models; None: this one.

    Returns the outcome on each profile. ``folder`` is None if no variant qualifies.

    Raises PublisherError: the errors of ``inspect_model``, ``calibration_invalid``,
    ``evaluation_invalid``, ``release_file_invalid``, ``golden_failed``; DeviceError
    ``runtime_missing`` without a package that the model or the data need; NetworkError.
    """
    from edgefleet.optimize.measurement import Budget  # noqa: PLC0415 - numpy, and more
    from edgefleet.optimize.new_release import Wanted  # noqa: PLC0415
    from edgefleet.optimize.pipeline import Request, run  # noqa: PLC0415
    from edgefleet.optimize.run_model import runner  # noqa: PLC0415
    from edgefleet.optimize.torch_source import TorchWishes, with_torch  # noqa: PLC0415

    wishes = TorchWishes(train, python, progress)
    with TemporaryDirectory(prefix="edgefleet-export-") as folder:
        given, own_trainer = with_torch(
            [models] if isinstance(models, str | Path) else list(models),
            calibration,
            wishes,
            Path(folder),
        )
        request = Request(
            models=given,
            profiles=list(profiles),
            calibration=calibration,
            evaluate=evaluate,
            wanted=Wanted(
                model=model,
                release=release,
                task=task,
                output=output,
                profiles=tuple(profiles),
                compare=compare or {},
                classes=tuple(classes),
            ),
            out=out,
            runner=runner(),
            budget=Budget(keep=keep, latency_s=latency_s, size_bytes=size_bytes),
            time_s=budget_s,
            baseline=baseline,
            cache_dir=cache_dir,
            threads=threads,
            metric=metric,
            trainer=trainer or own_trainer,
            recipes=tuple(recipes),
            students=tuple(students),
            own_profiles=own_profiles,
            images=images,
            tracking_uri=tracking_uri,
            converter_python=converter_python or Path(sys.executable),
            field=field,
            report=report,
        )
        return run(request, progress)
