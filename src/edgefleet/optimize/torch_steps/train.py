"""In the child: makes the smaller model, has the publisher's function train it, exports it."""

# pyright: reportMissingImports=false

import copy
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.recipe import Distil, Prune
from edgefleet.optimize.torch_steps.channels import prune_channels
from edgefleet.optimize.torch_steps.job import Done, Job
from edgefleet.optimize.torch_steps.load import (
    code_digest,
    counted,
    function_of,
    model_of,
    module_of,
    weights_digest,
)
from edgefleet.optimize.torch_steps.losses import OwnLoss, TeacherLoss
from edgefleet.optimize.torch_steps.onnx_file import write_onnx
from edgefleet.optimize.torch_steps.sparsity import make_permanent, mask_two_of_four, mask_weights

_TOOLS: Final = ("torch", "onnx", "onnxscript", "torch-pruning", "numpy")
_WIDTH: Final = "width:"  # a student of this name is the source with that share of its channels
_UNTRAINED: Final = (
    "The model was pruned and not trained after. It has lost what the removed weights did."
)
_NO_FASTER: Final = (
    "The zeros make the compressed transfer smaller. The file keeps its size, and neither ONNX "
    "Runtime nor LiteRT computes faster."
)
_TWO_OF_FOUR: Final = (
    "NVIDIA GPUs from the Ampere generation on can use this pattern with TensorRT; that was not "
    "measured."
)


def do(job: Job) -> Done:
    """Do the job. Raises PublisherError."""
    import torch  # noqa: PLC0415

    torch.manual_seed(job.seed)
    with np.load(job.example) as arrays:
        example = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    source = model_of(job.model)
    digest = weights_digest(source)
    before = counted(source)[0] if ":" in job.model else 0
    made, notes = source, tuple[str, ...]()
    match job.step:
        case Prune():
            made, notes = _pruned(job, job.step, copy.deepcopy(source), tuple(example.values()))
        case Distil():
            made = _student(job.step, source, tuple(example.values()))
            _train(job, made, job.step.epochs, _teacher_loss(job.step, source))
        case None:
            pass
    write_onnx(made, example, Path(job.made), digest)
    parameters, zeros = counted(made) if ":" in job.model else (0, 0)
    return Done(
        parameters_before=before,
        parameters=parameters,
        zeros=zeros,
        weights_sha256=digest,
        code_sha256=code_digest(one for one in (job.model, job.train) if one),
        versions=_versions(),
        notes=notes,
    )


def _pruned(job: Job, step: Prune, module: Any, given: tuple[Any, ...]) -> tuple[Any, Any]:
    masked = list[Any]()
    match step.structure:
        case "channels":
            prune_channels(module, given, step.share)
        case "2:4":
            masked = mask_two_of_four(module)
        case "weights":
            masked = mask_weights(module, step.share)
    notes = list[str]()
    if step.epochs:
        _train(job, module, step.epochs, OwnLoss())
    else:
        notes.append(_UNTRAINED)
    make_permanent(masked)
    if step.structure != "channels":
        notes.append(_NO_FASTER)
    if step.structure == "2:4":
        notes.append(_TWO_OF_FOUR)
    return module, tuple(notes)


def _student(step: Distil, source: Any, given: tuple[Any, ...]) -> Any:
    if not step.student.startswith(_WIDTH):
        return module_of(step.student)
    try:
        width = float(step.student.removeprefix(_WIDTH))
    except ValueError:
        width = 0.0
    if not 0 < width < 1:
        raise PublisherError(
            "step_failed",
            f"{step.student!r} is no student.",
            hint="Name a function, package.module:function, or a width such as width:0.25.",
        )
    student = copy.deepcopy(source)
    prune_channels(student, given, 1 - width)
    return student


def _teacher_loss(step: Distil, source: Any) -> TeacherLoss:
    return TeacherLoss(source, step.temperature, step.hard_share)


def _train(job: Job, module: Any, epochs: int, loss: OwnLoss) -> None:
    """Have the publisher's function train. A function that trains nothing is an error."""
    train = function_of(job.train)
    before = weights_digest(module)
    module.train()
    train(module, epochs=epochs, loss=loss, seed=job.seed)
    if weights_digest(module) == before:
        raise PublisherError(
            "step_failed",
            f"{job.train} changed no weight of the model.",
            hint="The function must train the model that it is given, in place.",
        )
    if not loss.calls:
        raise PublisherError(
            "step_failed",
            f"{job.train} never called its argument loss.",
            hint="Minimise loss(inputs, outputs, own) for each batch: it has the teacher's part.",
        )


def _versions() -> dict[str, str]:
    found = dict[str, str]()
    for tool in _TOOLS:
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return found
