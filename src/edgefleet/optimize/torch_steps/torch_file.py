"""Finds out what a PyTorch file is, without running code in it."""

import io
import zipfile
from enum import Enum
from pathlib import Path
from typing import Final

from edgefleet.base.errors import PublisherError

_PICKLE_HEAD: Final = b"\x80"  # of protocol 2 and later, as torch.save wrote before it used zip
_ENTRIES: Final = 1_000_000


class TorchFile(Enum):
    """The formats that hold a model without pickled Python objects."""

    TORCHSCRIPT = "torchscript"
    EXPORTED_PROGRAM = "exported_program"


def torch_file(path: Path) -> TorchFile:
    """The format of the file.

    Raises PublisherError ``model_is_pickle`` for a file of ``torch.save``, ``not_a_model`` for
    anything else.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if head[:1] == _PICKLE_HEAD:
        raise _pickle(path)
    try:
        with zipfile.ZipFile(io.FileIO(path)) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()[:_ENTRIES]]
            plain = archive.namelist()[:_ENTRIES]
    except (zipfile.BadZipFile, OSError) as error:
        raise PublisherError(
            "not_a_model", f"{path.name} is not a file of PyTorch: {error}."
        ) from error
    if any(name.startswith("code/") for name in names) and "constants.pkl" in names:
        return TorchFile.TORCHSCRIPT
    both = {*names, *plain}
    if "serialized_exported_program.json" in both or any(
        name.startswith("models/") and name.endswith(".json") for name in both
    ):
        return TorchFile.EXPORTED_PROGRAM
    if "data.pkl" in both:
        raise _pickle(path)
    raise PublisherError("not_a_model", f"{path.name} is an archive, but not one of PyTorch.")


def _pickle(path: Path) -> PublisherError:
    return PublisherError(
        "model_is_pickle",
        f"{path.name} is a pickle, as torch.save writes it.",
        hint="Name a function that returns the model, as package.module:function, or save it with "
        "torch.export.save: a pickle can run code, so it is never accepted.",
    )
