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
from edgefleet.optimize.golden.activations import channel_peaks
from edgefleet.optimize.golden.choose import Observed, choose_golden, sensitive_count
from edgefleet.optimize.new_release import (
    AGREEMENT,
    Draft,
    Runner,
    VariantFile,
    check_better_than_constant,
    fill_folder,
    truth_of,
)
from edgefleet.optimize.profiles import Profile
from edgefleet.optimize.samples import Array, Samples, evenly
from edgefleet.protocol.release import fixed_batch
from edgefleet.protocol.serving import ProveResult

POOL_CASES: Final = 2_000  # of the evaluation data, from which the golden set is chosen


@dataclass(frozen=True, slots=True)
class Chosen:
    """The variant of one profile. ``outputs`` are its answers to the evaluation data."""

    profile: Profile
    built: Built
    outputs: Arrays


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
    unchanged: Chosen,
    chosen: Sequence[Chosen],
    *,
    runner: Runner,
) -> ProveResult:
    """Write the folder. The answers of the ``unchanged`` model are the reference outputs.

    The golden set has the cases in which a broken kernel would show (``golden.choose``). Every
    variant is proven in its runtime, and the limits of the golden set are those that the worst one
    keeps, with a margin. Raises the errors of ``new_release``.
    """
    reference = {f"output.{name}": array for name, array in unchanged.outputs.items()}
    made = reference[f"output.{draft.output.name}"]
    check_better_than_constant(draft, made, truth_of(draft, samples))
    rows = _golden_rows(draft, samples, unchanged, chosen)
    answers = {name: np.asarray(array[rows]) for name, array in reference.items()}
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    try:
        variants = [_copy(folder, one, files) for one in chosen]
        part = _part(samples, rows)
        _, proof = fill_folder(folder, draft, part, answers, variants, runner=runner, hard=True)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return proof


def _golden_rows(
    draft: Draft, samples: Samples, unchanged: Chosen, chosen: Sequence[Chosen]
) -> Array:
    """The rows of the golden set: as many as leave no changed answer unnoticed."""
    pool = evenly(len(next(iter(samples.inputs.values()))), POOL_CASES)
    inputs = _part(samples, pool).inputs
    is_open = fixed_batch(unchanged.built.facts.inputs) is None
    has_channels = is_open and unchanged.built.recipe.runtime == "onnx"
    observed = Observed(
        task=draft.task,
        inputs=inputs,
        answers=[
            {name: np.asarray(array[pool]) for name, array in one.outputs.items()}
            for one in (unchanged, *chosen)
        ],
        output=draft.output.name,
        internal=channel_peaks(unchanged.built.path.read_bytes(), inputs) if has_channels else {},
    )
    found: Array = pool[choose_golden(observed, sensitive_count(AGREEMENT))]
    return found


def _copy(folder: Path, one: Chosen, files: dict[str, str]) -> VariantFile:
    """Copy the file of a variant, once for all profiles that share it."""
    built, profile = one.built, one.profile
    if built.sha256 not in files:
        steps = "-".join(str(step.__struct_config__.tag) for step in built.recipe.steps)
        name = f"{profile.name}-{steps or 'unchanged'}{built.path.suffix}"
        shutil.copyfile(built.path, folder / name)
        files[built.sha256] = name
    return VariantFile(
        profile=profile.name,
        precision=built.recipe.precision,
        file=files[built.sha256],
        max_batch=fixed_batch(built.facts.inputs) or profile.max_batch,
        memory_limit_mib=profile.memory_limit_mib,
    )


def _part(samples: Samples, rows: Array) -> Samples:
    def chosen(arrays: Arrays) -> Arrays:
        return {name: array[rows] for name, array in arrays.items()}

    return Samples(
        inputs=chosen(samples.inputs),
        truth=None if samples.truth is None else samples.truth[rows],
        truths=chosen(samples.truths),
        outputs={},
    )
