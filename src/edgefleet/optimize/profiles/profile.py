"""The facts of a profile, as its file has them."""

from typing import Annotated, Literal

from msgspec import Meta

from edgefleet.optimize import limits
from edgefleet.protocol.release import Precision, Runtime
from edgefleet.protocol.wire import Wire

Threads = Annotated[int, Meta(ge=1, le=256)]
Text = Annotated[str, Meta(max_length=300)]


class Profile(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A hardware class: the defaults and limits of a variant for it.

    ``runtimes`` are those that run its variants, the usual one first. ``precision`` is the one to
    try first; ``precisions`` are all that the class computes in.
    ``activations`` is the type of activations of integer variants that is fast on the class: on x86
    ONNX Runtime is about four times slower with int8 than with uint8, and TFLite has int8 only.
    ``weight_bits`` are those of integer weights in ONNX variants: 7 for a class that has x86 CPUs
    without VNNI, where ONNX Runtime saturates with 8 bits and the answers change.
    ``memory_limit_mib`` and ``max_batch`` are defaults of a variant. ``threads`` is the number that
    candidates are measured with. ``arch`` are the machines of the class, as ``uname -m`` names
    them; empty: any. ``untested`` says what of the class was never run by the project; empty: it
    was.
    """

    name: str
    runtimes: Annotated[tuple[Runtime, ...], Meta(min_length=1, max_length=8)]
    precision: Precision
    max_batch: Annotated[int, Meta(ge=1, le=limits.BATCH)]
    memory_limit_mib: Annotated[int, Meta(ge=1, le=limits.MEMORY_LIMIT_MIB)]
    precisions: Annotated[tuple[Precision, ...], Meta(min_length=1)]
    activations: Literal["uint8", "int8"]
    weight_bits: Literal[7, 8] = 8
    threads: Threads = 1
    arch: Annotated[tuple[Annotated[str, Meta(max_length=32)], ...], Meta(max_length=8)] = ()
    summary: Text = ""
    untested: Text = ""

    @property
    def runtime(self) -> str:
        """The usual runtime."""
        return self.runtimes[0]
