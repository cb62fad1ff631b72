"""The messages between parent and child process."""

from edgefleet.optimize.recipe import Distil, Prune
from edgefleet.protocol.device import Digest
from edgefleet.protocol.wire import Wire


class Job(Wire, frozen=True, kw_only=True):
    """One export. With ``step``, the model is changed and trained before.

    ``model`` and ``train`` are references of the form ``package.module:function``, and ``model``
    may be the path of a TorchScript or ExportedProgram file. ``example`` is an .npz file with one
    array for each input, by name and in the order of the model's arguments.
    """

    model: str
    example: str
    made: str
    step: Prune | Distil | None = None
    train: str = ""
    seed: int = 0


class Done(Wire, frozen=True, kw_only=True, tag_field="outcome", tag="done"):
    """The ONNX file was made.

    ``parameters`` and ``zeros`` count weights of the result, ``parameters_before`` those of the
    source. ``weights_sha256`` is the digest of the source's weights, ``code_sha256`` that of the
    publisher's source files. ``notes`` are sentences for people.
    """

    parameters_before: int
    parameters: int
    zeros: int
    weights_sha256: Digest
    code_sha256: Digest
    versions: dict[str, str]
    notes: tuple[str, ...] = ()


class Failed(Wire, frozen=True, kw_only=True, tag_field="outcome", tag="failed"):
    """A typed error of the child."""

    code: str
    message: str
    hint: str | None = None


class Answer(Wire, frozen=True, kw_only=True):
    """The child's answer to a job."""

    outcome: Done | Failed
