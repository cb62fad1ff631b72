"""Which profiles can run a model file, and why not."""

from collections.abc import Mapping
from typing import Final

from edgefleet.base.texts import counted
from edgefleet.optimize.inspection.graph import MemoryEstimate, ModelGraph
from edgefleet.optimize.profiles import Profile
from edgefleet.protocol.wire import Wire
from edgefleet.serving.model_file import ModelFacts

_INTEGERS: Final = frozenset({"INT8", "UINT8", "INT16", "INT32", "INT64", "BOOL"})
_FLOATS: Final[Mapping[str, str]] = {"FP16": "fp16", "FP32": "fp32", "FP64": "fp32"}


class ProfileFit(Wire, frozen=True, kw_only=True):
    """Whether a profile can run the file: with ``why_not`` it cannot. ``notes`` say what differs.

    ``memory`` is the estimate at the largest batch of the profile.
    """

    profile: str
    runtime: str  # the first of the profile that loads the file; empty if none does
    runs: bool
    why_not: tuple[str, ...]
    notes: tuple[str, ...]
    memory: MemoryEstimate


def fit(
    profile: Profile, facts: ModelFacts, graph: ModelGraph, memory: MemoryEstimate
) -> ProfileFit:
    """The fit of ``graph``, which is at the largest batch of the profile if its batch is open."""
    known = profile.runtimes
    runtime = next((one for one in known if one in facts.runtimes), "")
    why_not: list[str] = []
    if not runtime:
        why_not.append(
            f"The profile runs {' or '.join(known)}; the file is for {' or '.join(facts.runtimes)}."
        )
    elif runtime == "edgetpu" and facts.runtimes != ("edgetpu",) and (inner := _floats(graph)):
        why_not.append(
            f"The Edge TPU computes with integers only; {counted(inner, 'inner tensor')} "
            f"{'is a float' if inner == 1 else 'are floats'}."
        )
    limit_bytes = profile.memory_limit_mib << 20
    if memory.total_bytes > limit_bytes:
        why_not.append(
            f"It needs about {-(-memory.total_bytes >> 20)} MiB at batch {memory.batch}; the "
            f"profile has {profile.memory_limit_mib} MiB."
        )
    return ProfileFit(
        profile=profile.name,
        runtime=runtime,
        runs=not why_not,
        why_not=tuple(why_not),
        notes=tuple(_notes(profile, graph, memory)),
        memory=memory,
    )


def precision(graph: ModelGraph) -> str:
    """The precision of most bytes of the weights: ``fp32``, ``fp16`` or ``int8``."""
    sizes: dict[str, int] = {}
    for tensor in graph.tensors.values():
        if tensor.constant:
            kind = _FLOATS.get(tensor.datatype, "int8")
            sizes[kind] = sizes.get(kind, 0) + tensor.size_bytes
    return max(sizes, key=lambda kind: sizes[kind], default="fp32")


def _floats(graph: ModelGraph) -> int:
    """The activations that are no integers, without inputs and outputs: the CPU converts those."""
    outside = {*graph.inputs, *graph.outputs}
    return sum(
        not tensor.constant and tensor.datatype not in _INTEGERS
        for name, tensor in graph.tensors.items()
        if name not in outside
    )


def _notes(profile: Profile, graph: ModelGraph, memory: MemoryEstimate) -> list[str]:
    notes: list[str] = []
    if (found := precision(graph)) != profile.precision:
        notes.append(f"Its weights are {found}; the profile is meant for {profile.precision}.")
    if graph.batch != profile.max_batch:
        notes.append(f"Its batch is {graph.batch}: set max_batch = {graph.batch}.")
    if memory.unknown_tensors:
        unknown = counted(memory.unknown_tensors, "tensor")
        notes.append(f"Without {unknown} of no fixed size: it may need more.")
    return notes
