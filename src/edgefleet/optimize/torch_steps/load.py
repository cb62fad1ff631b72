"""In the child: the publisher's functions and models."""

# pyright: reportMissingImports=false

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.torch_steps.reference import reference_of
from edgefleet.optimize.torch_steps.torch_file import TorchFile, torch_file

_HINT: Final = (
    "Name it as FILE.py:function, or package.module:function importable from the current folder."
)


def function_of(reference: str) -> Callable[..., Any]:
    """The function that the reference names. Raises PublisherError ``step_failed``."""
    folder, module_name, name = reference_of(reference)
    if not module_name or not name:
        raise _failed(f"{reference!r} names no function.", _HINT)
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise _failed(f"{reference!r} cannot be imported: {error}.", _HINT) from error
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise _failed(f"The module {module_name} has no function {name!r}.", _HINT)
    made: Callable[..., Any] = found
    return made


def module_of(reference: str) -> Any:
    """The ``torch.nn.Module`` that the function returns."""
    import torch  # noqa: PLC0415

    made = function_of(reference)()
    if not isinstance(made, torch.nn.Module):
        raise _failed(
            f"{reference} returned {type(made).__name__}; a torch.nn.Module is needed.", None
        )
    return made


def model_of(model: str) -> Any:
    """A module from a reference, a ScriptModule or an ExportedProgram from a file.

    Raises PublisherError ``model_is_pickle``, ``not_a_model`` or ``step_failed``.
    """
    import torch  # noqa: PLC0415

    if ":" in model:
        return module_of(model)
    path = Path(model)
    if torch_file(path) is TorchFile.TORCHSCRIPT:
        return torch.jit.load(path, map_location="cpu")
    return torch.export.load(path)


def weights_digest(module: Any) -> str:
    """Of the names, types and bytes of all weights and buffers."""
    digest = sha256()
    state: Any = module.state_dict  # a property of an ExportedProgram
    weights: Any = state() if callable(state) else state
    for name, tensor in sorted(weights.items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def code_digest(references: Iterable[str]) -> str:
    """Of the source files of the functions. Files that these import are not in it."""
    digest = sha256()
    for reference in references:
        digest.update(f"{reference}\n".encode())
        if ":" in reference:
            path = inspect.getsourcefile(inspect.unwrap(function_of(reference)))
            digest.update(Path(path).read_bytes() if path else b"")
    return digest.hexdigest()


def counted(module: Any) -> tuple[int, int]:
    """The parameters of a module, and how many of them are zero."""
    tensors = [one.detach() for one in module.parameters()]
    return sum(one.numel() for one in tensors), sum(int((one == 0).sum()) for one in tensors)


def _failed(message: str, hint: str | None) -> PublisherError:
    return PublisherError("step_failed", message, hint=hint)
