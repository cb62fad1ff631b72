"""The inputs of an inference, from files or standard input. The content shows the format."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgefleet.base.errors import OperatorError
from edgefleet.cli.infer.limits import INPUT_BYTES

if TYPE_CHECKING:
    from edgefleet.client.inference.images import Scaling
    from edgefleet.client.inference.model_info import ModelInfo, TensorInfo
    from edgefleet.client.inference.tensors import Tensor

STDIN: Final = "-"
_NPY: Final = b"\x93NUMPY"
_ZIP: Final = b"PK"
_FORMS: Final = "JSON, .npy, .npz or an image"


def read_tensors(
    files: Sequence[str],
    info: ModelInfo,
    scaling: Scaling,
    places: Mapping[str, bytes] | None = None,
) -> dict[str, Tensor]:
    """The inputs of ``info`` in the files, each FILE or NAME=FILE; ``-`` is standard input.

    ``places`` are contents by file, instead of the disk. Raises OperatorError ``bad_request``,
    whose field is the file or the input.
    """
    from edgefleet.client.inference.tensors import fit

    found: dict[str, Tensor] = {}
    by_name = {one.name: one for one in info.inputs}
    for text in files:
        name, place = _split(text, by_name)
        data = places[place] if places is not None and place in places else _bytes(place)
        for key, tensor in _parse(data, place, name, info, scaling).items():
            if key not in by_name:
                raise _bad(place, f"The model has no input {key!r}; it has {info.wanted}.", info)
            if key in found:
                raise _bad(place, f"Input {key} is given twice.", info)
            found[key] = fit(tensor, by_name[key])
    missing = [one.name for one in info.inputs if one.name not in found]
    if missing:
        raise OperatorError(
            "bad_request",
            f"Input {missing[0]} is missing. The model needs {info.wanted}.",
            field=missing[0],
            hint=f"Give a FILE ({_FORMS}), or {missing[0]}=FILE; - is standard input.",
        )
    return found


def _split(text: str, by_name: Mapping[str, TensorInfo]) -> tuple[str | None, str]:
    """The input and the file of ``NAME=FILE``. A file whose own name has a ``=`` stays whole."""
    name, equals, place = text.partition("=")
    if equals and place and (name in by_name or not Path(text).exists()):
        return name, place
    return None, text


def _bytes(place: str) -> bytes:
    if place == STDIN:
        data = sys.stdin.buffer.read(INPUT_BYTES + 1)
    else:
        with Path(place).open("rb") as file:
            data = file.read(INPUT_BYTES + 1)
    if len(data) > INPUT_BYTES:
        raise OperatorError(
            "bad_request", f"{place} has more than {INPUT_BYTES >> 20} MiB.", field=place
        )
    if not data:
        raise OperatorError("bad_request", f"{_title(place)} is empty.", field=place)
    return data


def _parse(
    data: bytes, place: str, name: str | None, info: ModelInfo, scaling: Scaling
) -> dict[str, Tensor]:
    """The tensors by input."""
    from edgefleet.client.inference.images import IMAGE_HEADS, image_tensor, read_image

    if data.startswith((_NPY, _ZIP)):
        return _from_numpy(data, place, name, info)
    if data.startswith(IMAGE_HEADS):
        wanted = _info(place, name, info)
        return {wanted.name: image_tensor(read_image(data, place), wanted, scaling)}
    return _from_json(data, place, name, info)


def _from_numpy(data: bytes, place: str, name: str | None, info: ModelInfo) -> dict[str, Tensor]:
    import zipfile

    import numpy as np

    try:
        loaded: Any = np.load(io.BytesIO(data), allow_pickle=False)
        arrays: Any = loaded if isinstance(loaded, np.ndarray) else dict(loaded.items())
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _bad(place, f"{_title(place)} is no valid .npy or .npz: {error}.", info) from error
    if not isinstance(arrays, dict):
        return {_info(place, name, info).name: arrays}
    if name is None and len(arrays) == len(info.inputs) == 1:
        name = info.inputs[0].name
    if name is None:
        return arrays
    if len(arrays) != 1:
        raise _bad(place, f"{_title(place)} has {len(arrays)} arrays, not one for {name}.", info)
    return {_info(place, name, info).name: next(iter(arrays.values()))}


def _from_json(data: bytes, place: str, name: str | None, info: ModelInfo) -> dict[str, Tensor]:
    """A request of the protocol, an object of tensors by input, or the values of one input."""
    import msgspec

    try:
        value: Any = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(
            place, f"{_title(place)} is none of {_FORMS}: as JSON, {error}.", info
        ) from error
    if isinstance(value, dict) and name is None:
        entries = value.get("inputs")
        if isinstance(entries, list):
            return {key: _array(one, place, info) for key, one in _entries(entries, place, info)}
        return {key: _array(one, place, info) for key, one in value.items()}
    return {_info(place, name, info).name: _array(value, place, info)}


def _entries(entries: list[Any], place: str, info: ModelInfo) -> list[tuple[str, Any]]:
    """Name and values of each entry of a request, folded into its shape."""
    import numpy as np

    found: list[tuple[str, Any]] = []
    for number, entry in enumerate(entries):
        match entry:
            case {"name": str(name), "data": list(values), "shape": list(shape)}:
                try:
                    found.append((name, np.array(values).reshape(shape)))
                except (TypeError, ValueError) as error:
                    raise _bad(place, f"inputs[{number}] of {place}: {error}.", info) from error
            case _:
                raise _bad(
                    place, f"inputs[{number}] of {place} lacks a name, a shape or data.", info
                )
    return found


def _array(value: Any, place: str, info: ModelInfo) -> Tensor:
    import numpy as np

    try:
        array = np.array(value)
    except ValueError as error:
        raise _bad(place, f"The values of {place} form no tensor: {error}.", info) from error
    if array.dtype.kind in "US":
        return np.array(value, dtype=object)
    if array.dtype.kind not in "bfiu":
        raise _bad(place, f"The values of {place} are not all numbers, booleans or texts.", info)
    return array


def _info(place: str, name: str | None, info: ModelInfo) -> TensorInfo:
    """The input that a file without names is for."""
    for one in info.inputs:
        if name == one.name or (name is None and len(info.inputs) == 1):
            return one
    what = "names no input" if name is None else f"is for {name!r}, which is no input"
    raise _bad(place, f"{_title(place)} {what}; the model has {info.wanted}.", info)


def _title(place: str) -> str:
    return "Standard input" if place == STDIN else place


def _bad(place: str, message: str, info: ModelInfo) -> OperatorError:
    return OperatorError(
        "bad_request",
        message,
        field=place,
        hint=f"Give {_FORMS} with the inputs of {info.name}: {info.wanted}.",
    )
