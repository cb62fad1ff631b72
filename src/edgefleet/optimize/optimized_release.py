"""Writes the variants that were chosen as a release folder, ready for `model publish`."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.building import Built
from edgefleet.optimize.evaluation_data import Arrays
from edgefleet.optimize.new_release import Draft, Runner, VariantFile, fill_folder
from edgefleet.optimize.profiles import Profile
from edgefleet.optimize.samples import Array, Samples
from edgefleet.protocol.serving import ProveResult

GOLDEN_CASES: Final = 500


@dataclass(frozen=True, slots=True)
class Chosen:
    """The variant of one profile."""

    profile: Profile
    built: Built


def check_free(folder: Path) -> None:
    """Raises PublisherError ``release_file_invalid`` if the folder has files."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PublisherError(
            "release_file_invalid",
            f"{folder} is not empty.",
            field="out",
            hint="Name a new folder.",
        )


def write_release(
    folder: Path,
    draft: Draft,
    samples: Samples,
    reference: Arrays,
    chosen: Sequence[Chosen],
    *,
    runner: Runner,
) -> ProveResult:
    """Write the folder. ``reference`` are the outputs of the unchanged model for all samples.

    The golden set has at most 500 of the samples, evenly chosen. Every variant is proven in its
    runtime, and the limits of the golden set are those that the worst one keeps, with a margin.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    try:
        variants = [_copy(folder, one, files) for one in chosen]
        rows = _rows(samples, GOLDEN_CASES)
        part = _part(samples, rows)
        answers = {f"output.{name}": np.asarray(array[rows]) for name, array in reference.items()}
        return fill_folder(folder, draft, part, answers, variants, runner=runner)[1]
    except BaseException:
        shutil.rmtree(folder)
        raise


def _copy(folder: Path, one: Chosen, files: dict[str, str]) -> VariantFile:
    """Copy the file of a variant, once for all profiles that share it."""
    built, profile = one.built, one.profile
    if built.sha256 not in files:
        steps = "-".join(str(step.__struct_config__.tag) for step in built.recipe.steps)
        name = f"{profile.name}-{steps or 'unchanged'}{built.path.suffix}"
        shutil.copyfile(built.path, folder / name)
        files[built.sha256] = name
    fixed = [spec.shape[0] for spec in built.facts.inputs if spec.shape[0] != -1]
    return VariantFile(
        profile=profile.name,
        precision=built.recipe.precision,
        file=files[built.sha256],
        max_batch=min(fixed) if fixed else profile.max_batch,
        memory_limit_mib=profile.memory_limit_mib,
    )


def _rows(samples: Samples, cases: int) -> Array:
    count = len(next(iter(samples.inputs.values())))
    found: Array = np.unique(np.linspace(0, count - 1, min(cases, count)).astype(np.int64))
    return found


def _part(samples: Samples, rows: Array) -> Samples:
    def chosen(arrays: Arrays) -> Arrays:
        return {name: array[rows] for name, array in arrays.items()}

    return Samples(
        inputs=chosen(samples.inputs),
        truth=None if samples.truth is None else samples.truth[rows],
        truths=chosen(samples.truths),
        outputs={},
    )
