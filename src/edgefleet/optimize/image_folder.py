"""Folders of images as calibration and evaluation data.

In a folder for evaluation each class has a folder. The classes are numbered by ``classes.txt`` in
the folder (one name a line), else by their names if all are numbers, else in the order of the
names.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import to_builtins

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.child import free_limits, run_child
from edgefleet.optimize.data_checks import Purpose, data_error
from edgefleet.optimize.image_process import ImageAnswer, ImageRequest
from edgefleet.optimize.limits import DATA_BYTES, IMAGE_FILES
from edgefleet.optimize.preprocessing import Preprocessing
from edgefleet.optimize.samples import Array, evenly
from edgefleet.protocol.release import FLOATS, TensorSpec
from edgefleet.serving.model_file import ModelFacts

_CLASSES_FILE: Final = "classes.txt"
_CLASSES_BYTES: Final = 1 << 20
_ENDINGS: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".pgm",
                             ".tif", ".tiff"})  # fmt: skip
_MODULE: Final = "edgefleet.optimize.image_process"
_HINT: Final = "Give a folder for each class, with its images inside; or an .npz file."


@dataclass(frozen=True, slots=True)
class ImageData:
    """Images as inputs of a model, and their classes if the folder has some.

    ``facts`` say for the lineage how they were made.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    facts: Mapping[str, object]


def read_images(
    folder: Path,
    facts: ModelFacts,
    how: Preprocessing | None,
    work: Path,
    *,
    purpose: Purpose,
    cases: int,
) -> ImageData:
    """At most ``cases`` images, evenly chosen, as the only input of the model.

    ``work`` gets the file of the array. Raises PublisherError ``calibration_invalid`` or
    ``evaluation_invalid`` with the file or the input; DeviceError ``runtime_missing`` without
    Pillow.
    """
    if how is None:
        raise data_error(
            purpose,
            "preprocess",
            f"{folder.name} is a folder of images, and their preprocessing is not stated.",
            "State it as in the training: --preprocess size=224x224 --preprocess mean=0.5 ... "
            "See docs/optimize-inputs.md.",
        )
    spec = _input(facts, how, purpose)
    files = _files(folder, purpose)
    names, labels = (None, None)
    if purpose == "evaluation":
        names, labels = _classes(folder, files, facts)
    rows = evenly(len(files), cases)
    files = [files[row] for row in rows]
    request = ImageRequest(
        files=tuple(map(str, files)), preprocessing=how, made=str(work / f"{purpose}.npy")
    )
    needed = 4 * len(files) * int(np.prod(how.shape))
    if needed > DATA_BYTES:
        raise data_error(
            purpose, spec.name, f"The images need {needed:,} bytes as inputs of the model; "
            f"{DATA_BYTES:,} are allowed.", "Give fewer images."
        )  # fmt: skip
    try:
        run_child(_MODULE, request, ImageAnswer, free_limits(), what="Reading the images")
    except PublisherError as error:
        raise data_error(purpose, error.field or folder.name, error.message, _HINT) from error
    how_made: dict[str, object] = {"images": len(files), "preprocessing": to_builtins(how)}
    if names is not None:
        how_made["classes"] = names
    inputs = {spec.name: np.load(request.made, mmap_mode="r", allow_pickle=False)}
    return ImageData(inputs, None if labels is None else labels[rows], how_made)


def _input(facts: ModelFacts, how: Preprocessing, purpose: Purpose) -> TensorSpec:
    """The only input of the model, if it takes such images."""
    spec = facts.inputs[0]
    if len(facts.inputs) != 1 or spec.datatype not in FLOATS:
        raise data_error(
            purpose, spec.name, "Images are given to models with one input of floats; the model "
            f"has {', '.join(f'{one.name} ({one.datatype})' for one in facts.inputs)}.",
            "Save the prepared inputs as an .npz file.",
        )  # fmt: skip
    fits = len(spec.shape) == 4 and all(
        size in (-1, got) for size, got in zip(spec.shape[1:], how.shape, strict=True)
    )
    if not fits:
        raise data_error(
            purpose, spec.name, f"With this preprocessing a case has the shape {list(how.shape)}, "
            f"and the input {list(spec.shape[1:])}.",
            "Change size=, layout= or color= of the preprocessing.",
        )  # fmt: skip
    return spec


def _files(folder: Path, purpose: Purpose) -> list[Path]:
    """The files with the endings of images, sorted. Hidden ones are left out."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        found += [
            Path(place) / name
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in _ENDINGS
        ]
        if len(found) > IMAGE_FILES:
            raise data_error(
                purpose, folder.name, f"It has more than {IMAGE_FILES:,} images.",
                "Give a folder with fewer.",
            )  # fmt: skip
    if not found:
        raise data_error(purpose, folder.name, "There are no images in the folder.", _HINT)
    return found


def _classes(folder: Path, files: Sequence[Path], facts: ModelFacts) -> tuple[list[str], Array]:
    """The names of the classes by number, and the number of each file's class."""
    owners = [file.relative_to(folder).parts[0] for file in files]
    if loose := next((f for f in files if len(f.relative_to(folder).parts) < 2), None):
        raise data_error(
            "evaluation", loose.name, "The image is in no class folder, so its class is not known.",
            _HINT,
        )  # fmt: skip
    seen = sorted(set(owners))
    names = _named(folder) or seen
    listed = (folder / _CLASSES_FILE).is_file()
    if not listed and all(one.isdecimal() for one in seen):
        names = [str(number) for number in range(max(map(int, seen)) + 1)]
        owners = [str(int(one)) for one in owners]
    elif not listed:
        _check_count(folder, names, facts)
    numbers = {name: number for number, name in enumerate(names)}
    if unknown := next((one for one in owners if one not in numbers), None):
        raise data_error(
            "evaluation", unknown, f"The class {unknown!r} is not in {_CLASSES_FILE}.",
            "Add it at its place, or remove its folder.",
        )  # fmt: skip
    return names, np.array([numbers[one] for one in owners], np.int64)


def _named(folder: Path) -> list[str]:
    """The lines of ``classes.txt``. Empty if there is none."""
    path = folder / _CLASSES_FILE
    if not path.is_file():
        return []
    try:
        with path.open("rb") as file:
            text = file.read(_CLASSES_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise data_error(
            "evaluation", _CLASSES_FILE, f"It cannot be read: {error}.", "Write it as UTF-8."
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _check_count(folder: Path, names: Sequence[str], facts: ModelFacts) -> None:
    """Without all classes the order of the names does not give their numbers."""
    sizes = {one.shape[1] for one in facts.outputs if len(one.shape) == 2 and one.shape[1] > 1}
    if sizes and len(names) not in sizes:
        raise PublisherError(
            "evaluation_invalid",
            f"The folder has {len(names)} classes, and the model answers "
            f"{' or '.join(map(str, sorted(sizes)))}: their order does not give their numbers.",
            field=folder.name,
            hint=f"Add {_CLASSES_FILE} to the folder: the names of all classes in the order of the "
            "scores, one a line.",
        )
