"""The measurements of a shadow: the chosen requests, the compared answers, and the counters.

Nothing here runs a model; ``shadow_release`` does.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from edgefleet.base.errors import DeviceError, EdgefleetError
from edgefleet.base.texts import shortened
from edgefleet.protocol.comparisons import Comparison, Top1, compared_outputs
from edgefleet.protocol.release import Quality, TensorSpec, Variant
from edgefleet.protocol.serving import ServedShadow
from edgefleet.protocol.shadow import ShadowStatus
from edgefleet.serving.bf16 import all_numbers
from edgefleet.serving.comparisons import compare, worst_case
from edgefleet.serving.declared import check_outputs
from edgefleet.serving.limits import DETAIL_CHARS, SHADOW_BYTES
from edgefleet.serving.run_times import bytes_of
from edgefleet.serving.runtime import Tensor
from edgefleet.serving.stats import LatencyHistogram, confidence_sum

_GOLDEN_RATIO: Final = 0.6180339887498949


class Sampler:
    """Chooses a share of the requests, evenly, and in step with no other period of the clients.

    The numbers ``n * golden ratio mod 1`` are spread evenly whatever the number of requests is.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._at = 0.0

    def takes(self) -> bool:
        """Whether the next request is chosen."""
        self._at = (self._at + _GOLDEN_RATIO) % 1.0
        return self._at < self._share


class Differs(Exception):  # noqa: N818 - a finding for the caller
    """The candidate has another interface than the active release: nothing can be compared."""


class ShadowCounts:
    """The counters of one candidate, against the active release."""

    def __init__(self, wanted: ServedShadow) -> None:
        variant = wanted.release.variant
        self.comparison: Comparison = wanted.comparison or Top1(output=variant.outputs[0].name)
        self.outputs = outputs_of(self.comparison, wanted.release.quality)
        self.asked = self.samples = self.errors = 0
        self.disagreement = 0.0
        self.error_example = self.difference = ""
        self.skipped: dict[str, int] = {}
        self.confidence = [0.0, 0.0]  # sums of the active release and of the candidate
        self.confidence_count = 0
        self.cpu_ns = 0
        self._specs = {spec.name: spec for spec in variant.outputs}
        self._quality = wanted.release.quality
        self._before = wanted.release.quality
        self._release = wanted.release
        self._latency = LatencyHistogram()

    def compare_with(self, quality: Quality | None) -> None:
        """Read the scores of the active release by its own rule, if it has one for this output."""
        if quality and self._quality and quality.output == self._quality.output:
            self._before = quality

    def skip(self, why: str) -> None:
        """Count a chosen request that the candidate does not get."""
        self.skipped[why] = self.skipped.get(why, 0) + 1

    def failed(self, error: EdgefleetError) -> None:
        """Count a request that the candidate did not answer, and the active release did."""
        self.samples += 1
        self.errors += 1
        self.error_example = self.error_example or shortened(error.message, DETAIL_CHARS)

    def answered(
        self, got: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, cpu_ns: int, run_us: int
    ) -> None:
        """Count the answers ``got`` of the candidate to a request with the answers ``wanted``.

        Answers that the candidate's manifest does not allow are an error.
        """
        try:
            check_outputs([self._specs[name] for name in got], got)
        except EdgefleetError as error:
            self.failed(error)
            return
        if not self._score(got, wanted):
            self.failed(DeviceError("inference_failed", "A score is not a finite number."))
            return
        self.samples += 1
        self.cpu_ns += cpu_ns
        self._latency.record(run_us)
        agreement, difference = agreement_of(self.comparison, got, wanted)
        self.disagreement += 1 - agreement
        if agreement < 1 and not self.difference:
            self.difference = shortened(difference, DETAIL_CHARS)

    def _score(self, got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
        """Count the top scores. False if those of the candidate alone are not finite."""
        quality = self._quality
        if quality is None or not wanted[quality.output].size:
            return True
        scores = wanted[quality.output]
        before = confidence_sum(scores, (self._before or quality).scores)
        after = confidence_sum(got[quality.output], quality.scores)
        if before is None or after is None:
            return before is None
        self.confidence_count += scores.size // scores.shape[-1]
        self.confidence[0] += before
        self.confidence[1] += after
        return True

    def status(
        self,
        *,
        worker: int | None = None,
        ended: str = "",
        cause: str = "",
        fault: bool = False,
    ) -> ShadowStatus:
        """The counters, with how the candidate is."""
        return ShadowStatus(
            release=self._release.release,
            artifact_sha256=self._release.variant.artifact.sha256,
            ready=worker is not None,
            worker=worker,
            ended=ended,
            cause=cause,
            fault=fault,
            asked=self.asked,
            samples=self.samples,
            errors=self.errors,
            error_example=self.error_example,
            disagreement=round(self.disagreement, 6),
            difference=self.difference,
            skipped=dict(self.skipped),
            confidence_count=self.confidence_count,
            confidence_before_sum=self.confidence[0],
            confidence_sum=self.confidence[1],
            cpu_s=self.cpu_ns / 1e9,
            latency_us_p50=self._latency.quantile_us(0.5),
            latency_us_p95=self._latency.quantile_us(0.95),
        )


def outputs_of(comparison: Comparison, quality: Quality | None) -> tuple[str, ...]:
    """The outputs that are compared, and the one whose confidence is measured."""
    compared = compared_outputs(comparison)
    if quality is None or quality.output in compared:
        return compared
    return (*compared, quality.output)


def check_interface(
    variant: Variant, inputs: Sequence[TensorSpec], outputs: Sequence[str], names: Sequence[str]
) -> None:
    """Raises Differs if the active release and the candidate do not get and give the same.

    ``inputs`` and ``outputs`` are those of the active release, ``names`` the compared outputs.
    """
    if tuple(variant.inputs) != tuple(inputs):
        raise Differs("The candidate has other inputs than the active release.")
    missing = [name for name in names if name not in outputs]
    if missing:
        raise Differs(f"The active release has no output {missing[0]}.")


def reason_to_skip(
    inputs: Mapping[str, Tensor], made: Mapping[str, Tensor], counts: ShadowCounts, items: int,
    max_batch: int,
) -> str:  # fmt: skip
    """Why a chosen request is not for the candidate. Empty if it is."""
    if any(name not in made for name in counts.outputs):
        return "outputs not asked"
    if items > max_batch:
        return "batch too large"
    if bytes_of(inputs) > SHADOW_BYTES:
        return "inputs too large"
    return ""


def agreement_of(
    comparison: Comparison, got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[float, str]:
    """How well the answers agree, from 0 to 1, and an example of how they differ.

    Answers of other shapes, and those that a plug-in cannot compare, do not agree.
    """
    got, wanted = all_numbers(got), all_numbers(wanted)
    try:
        agreement = compare(comparison, got, wanted)
        if agreement >= 1:
            return 1.0, ""
        return agreement, worst_case(comparison, got, wanted) or _classes(comparison, got, wanted)
    except EdgefleetError as error:
        return 0.0, error.message.rstrip(".")


def _classes(
    comparison: Comparison, got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> str:
    """The first case whose highest score is another one."""
    if not isinstance(comparison, Top1):
        return ""
    name = comparison.output
    mine, theirs = (one[name].reshape(len(one[name]), -1).argmax(axis=1) for one in (got, wanted))
    place = int((mine != theirs).argmax())
    return f"case {place} of {name} is class {mine[place]} instead of {theirs[place]}"
