"""Chooses the quantised GGUF file of a hardware class by what was measured on it.

There is no best one for all: on one CPU Q4_0 generates 1.9 times as fast as Q4_K_M with the kernels
of newer instructions, and Q4_K_M 1.4 times as fast as Q4_0 with AVX2 alone (measured). So each
class is measured, with the threads of its profile.
"""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from edgefleet.protocol.wire import Wire

Positive = Annotated[float, Meta(gt=0)]


class GgufMeasurement(Wire, frozen=True, kw_only=True):
    """One file in llama.cpp on one class. ``quant`` names its weights, such as Q4_0.

    ``peak_memory_bytes`` is that of the process, without a memory map of the file. ``loss`` is the
    mean negative log likelihood of a token on the evaluation text, in nats. None: there is no such
    text, and the choice is by speed and memory alone.
    """

    quant: str
    size_bytes: int
    peak_memory_bytes: int
    prompt_tokens_per_s: Positive
    tokens_per_s: Positive  # while it generates
    loss: float | None = None


class GgufBudget(Wire, frozen=True, kw_only=True):
    """Most that the file may cost. None: no limit. ``added_loss`` is over the first measurement."""

    memory_bytes: int | None = None
    size_bytes: int | None = None
    added_loss: float = 0.02


class GgufChoice(Wire, frozen=True, kw_only=True):
    """The file to ship; None if none qualifies. ``text`` is a sentence.

    ``refused`` has the reason for each other one that does not qualify, by its name.
    """

    chosen: GgufMeasurement | None
    refused: dict[str, str]
    text: str


def choose(measured: Sequence[GgufMeasurement], budget: GgufBudget) -> GgufChoice:
    """The fastest generation within the budget; among equals the smallest file.

    The first measurement is the baseline: the file that the others were made from.
    """
    baseline = measured[0]
    refused = {one.quant: reason for one in measured if (reason := _why_not(one, baseline, budget))}
    fitting = [one for one in measured if one.quant not in refused]
    if not fitting:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        return GgufChoice(chosen=None, refused=refused, text=f"No file qualifies. {reasons}.")
    best = max(fitting, key=lambda one: (one.tokens_per_s, -one.size_bytes))
    return GgufChoice(
        chosen=best,
        refused=refused,
        text=f"{best.quant} generates {best.tokens_per_s:.1f} tokens/s, "
        f"{best.tokens_per_s / baseline.tokens_per_s:.2f} times {baseline.quant}, and its file is "
        f"{baseline.size_bytes / best.size_bytes:.2f} times smaller.",
    )


def _why_not(one: GgufMeasurement, baseline: GgufMeasurement, budget: GgufBudget) -> str:
    if budget.memory_bytes is not None and one.peak_memory_bytes > budget.memory_bytes:
        return (
            f"it needs {one.peak_memory_bytes / 2**20:.0f} MiB of memory, "
            f"{budget.memory_bytes / 2**20:.0f} MiB are allowed"
        )
    if budget.size_bytes is not None and one.size_bytes > budget.size_bytes:
        return (
            f"its file has {one.size_bytes / 2**20:.0f} MiB, "
            f"{budget.size_bytes / 2**20:.0f} MiB are allowed"
        )
    if one.loss is not None and baseline.loss is not None:
        added = one.loss - baseline.loss
        if added > budget.added_loss:
            return f"its loss is {added:.3f} nats higher, {budget.added_loss:.3f} are allowed"
    return ""
