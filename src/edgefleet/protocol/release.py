"""Release manifests and the envelopes in which publishers sign them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta

from edgefleet.protocol.comparisons import Comparison
from edgefleet.protocol.device import Digest
from edgefleet.protocol.wire import Wire

MANIFEST_TYPE: Final = "application/vnd.edgefleet.release.v1+json"

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64",
    "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip
"""Tensor types by their Open Inference Protocol v2 names."""

LAYOUTS: Final[Mapping[Datatype, str]] = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "BF16": "V2", "FP32": "<f4", "FP64": "<f8", "BYTES": "O",
}  # fmt: skip
"""The elements of each type in memory, as NumPy names them. It has no BF16: two bytes."""

FIRST_DATATYPES: Final = frozenset(LAYOUTS) - {"BF16"}
"""The types of an agent that does not report its own."""

FLOATS: Final[tuple[Datatype, ...]] = ("FP16", "BF16", "FP32", "FP64")

Precision = Literal["fp32", "fp16", "int8"]
Runtime = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9_.-]*$", max_length=32)]
"""One of ``runtimes.BUILT_IN``, or the name of a user's own runtime."""


Task = Literal[
    "classification", "detection", "segmentation", "regression", "embedding", "text", "none"
]
"""The kind of a model's answers. ``none`` says nothing about their meaning."""


class TensorSpec(Wire, frozen=True, kw_only=True):
    """One input or output. -1 in ``shape`` is any size (the batch)."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


def fixed_batch(inputs: Sequence[TensorSpec]) -> int | None:
    """The batch with which a model was exported. None: it takes any."""
    return next((spec.shape[0] for spec in inputs if spec.shape[0] != -1), None)


class Artifact(Wire, frozen=True, kw_only=True):
    """Bytes, named by their SHA-256."""

    sha256: Digest
    size_bytes: Annotated[int, Meta(ge=0, le=1 << 53)]


class Variant(Wire, frozen=True, kw_only=True):
    """The release built for one profile."""

    profile: str
    runtime: Runtime
    precision: Precision
    artifact: Artifact
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch: int
    memory_limit_mib: Annotated[int, Meta(le=1 << 24)]
    min_runtime: Annotated[str, Meta(max_length=32)] = ""  # oldest version that can load the file


class Golden(Wire, frozen=True, kw_only=True):
    """The golden set, and the least accuracy and agreement that a device must measure.

    The artifact is an ``.npz`` with ``input.<name>`` (cases first) and ``output.<name>`` (reference
    outputs of this release). ``label`` (int64, one per case) or ``truth.<name>`` is the truth.
    Without a ``comparison``, the highest scores of the first output are compared: the only
    comparison of an agent that reports none.
    """

    artifact: Artifact
    cases: int
    min_accuracy: float  # least agreement with the truth, from 0 to 1. 0: it is not required
    min_agreement: float  # least agreement with the reference outputs, from 0 to 1
    comparison: Comparison | None = None


class Quality(Wire, frozen=True, kw_only=True):
    """How to measure live quality without labels: by the class scores of ``output``."""

    output: str
    scores: Literal["probabilities", "logits"]
    max_confidence_drop: float = 0.10  # against the previous release on this device
    min_requests: int = 20  # before a device judges the release


class ClassNames(Wire, frozen=True, kw_only=True):
    """The names of the classes of ``output``, in the order of its scores. Two may be equal."""

    output: str
    names: tuple[str, ...]


class ReleaseManifest(Wire, frozen=True, kw_only=True):
    """One release of a model, immutable. Its digest is the SHA-256 of the signed payload."""

    model: str
    release: str
    variants: tuple[Variant, ...]
    golden: Golden
    quality: Quality | None  # None: the task has no class scores
    created_at: float
    parent: str | None = None  # the release from which this one was made
    notes: str = ""
    task: Task = "classification"
    changes_interface: bool = False  # clients of the release before it must change, and may
    lineage: Artifact | None = None  # how the variants were made, see ``lineage``. For people only
    classes: tuple[ClassNames, ...] = ()  # an agent of before serves the release without names


def unjudged(manifest: ReleaseManifest) -> str:
    """The live metrics that nobody can judge, as a sentence. Empty for a classifier."""
    if manifest.quality is not None:
        return ""
    task = "without a task" if manifest.task == "none" else f"for {manifest.task}"
    return f"Confidence and class drift are not judged: a model {task} has no class scores."


class Signature(Wire, frozen=True, kw_only=True):
    """One signature; ``sig`` is base64."""

    keyid: str
    sig: str


class Envelope(Wire, frozen=True, kw_only=True):
    """A DSSE envelope (github.com/secure-systems-lab/dsse): ``payload`` is base64."""

    payloadType: str  # noqa: N815 - the name that the DSSE specification fixes
    payload: str
    signatures: tuple[Signature, ...]
