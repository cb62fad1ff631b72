"""The gate: what the evidence of a wave says - pass, fail or inconclusive.

``judge`` is a value-to-value function, and the engine takes any other of its type (``Gate``).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from edgefleet.protocol.rollout import Evidence, GateSpec, Judgement, Verdict

ALPHA: Final = 0.05  # one-sided: a good release is blamed for bad luck once in 20 single looks
_BISECTIONS: Final = 60  # halves [0, 1] down to 1e-18
_FRACTION_TERMS: Final = 10_000
_TINY: Final = 1e-300

# Reasons of a judgement. Those to wait are also codes of a wait report.
PASSED: Final = "passed"
ERROR_RATE: Final = "error_rate"
REFUSED_BY_DEVICES: Final = "refused_by_devices"
CONFIDENCE_DROP: Final = "confidence_drop"
SAMPLE: Final = "sample"
STRAGGLERS: Final = "stragglers"
SOAK: Final = "soak"
INCONCLUSIVE: Final = "inconclusive"


class Gate(Protocol):
    """Judges the open wave. ``before`` is its last judgement that gave another reason."""

    def __call__(
        self,
        evidence: Evidence,
        spec: GateSpec,
        *,
        opened_at: float,
        before: Judgement | None,
        now: float,
    ) -> Judgement: ...


@dataclass(frozen=True, slots=True)
class _Sample:
    """The evidence, counted the way the rule counts."""

    bad: int
    size: int
    cut: int
    unheard: int  # reached, but not finished
    waiting: bool  # stragglers may still finish within the spec's patience
    patience_over: bool
    needed: int

    @property
    def rate(self) -> float:
        return self.bad / self.size if self.size else 0.0


def judge(
    evidence: Evidence,
    spec: GateSpec,
    *,
    opened_at: float,
    before: Judgement | None,
    now: float,
) -> Judgement:
    """Fail as early as the numbers allow, pass only when nothing is left to learn.

    Rate = (failed + refused) / (failed + refused + healthy). It fails the wave when the one-sided
    95 % Clopper-Pearson lower bound lies above ``max_error_rate`` on a sufficient sample, or when
    the whole wave has spoken and no device is well. Patience ends the wait for devices that have
    not begun; those in trial get the time that a trial can take on top.
    """
    sample = _sample(evidence, spec, opened_at, now)

    def say(verdict: Verdict, reason: str, text: str) -> Judgement:
        return Judgement(verdict=verdict, reason=reason, text=text, at=now, evidence=evidence)

    if _errors_fail(sample, spec):
        return say(Verdict.FAIL, *_error_reason(evidence, sample, spec))
    drop = _confidence_drop(evidence, spec)
    if drop is not None and drop > spec.max_confidence_drop:
        return say(
            Verdict.FAIL,
            CONFIDENCE_DROP,
            f"Mean confidence is {drop:.3f} below the control's; "
            f"{spec.max_confidence_drop:g} is allowed.",
        )
    if sample.size < sample.needed:
        return say(
            Verdict.INCONCLUSIVE,
            SAMPLE,
            f"{sample.size} of the {sample.needed} devices that a verdict needs have finished.",
        )
    if sample.waiting:
        return say(
            Verdict.INCONCLUSIVE,
            STRAGGLERS,
            f"Not finished yet: {sample.unheard} reached {_devices(sample.unheard)} of the wave.",
        )
    if sample.rate > spec.max_error_rate:
        return say(
            Verdict.INCONCLUSIVE,
            INCONCLUSIVE,
            f"{sample.bad} of {sample.size} failed: above {spec.max_error_rate:.1%}, "
            "but too few to be sure. Advance or revert by hand.",
        )
    stood_s = now - before.at if before is not None and before.reason == SOAK else 0.0
    if stood_s >= spec.soak_s:
        return say(Verdict.PASS, PASSED, f"{sample.bad} of {sample.size} failed.")
    return say(
        Verdict.INCONCLUSIVE,
        SOAK,
        f"{sample.bad} of {sample.size} failed; this must stand for {spec.soak_s:g} s.",
    )


def _sample(evidence: Evidence, spec: GateSpec, opened_at: float, now: float) -> _Sample:
    bad = evidence.failed + evidence.refused
    size = bad + evidence.healthy
    begun_until = opened_at + spec.patience_s
    trial_until = begun_until + spec.confirm_after_s + spec.silence_s
    patience_over = now >= begun_until
    needed = min(spec.min_sample, evidence.cut)
    if patience_over and evidence.cut < spec.min_sample:
        # A wave that is smaller than the sample counts as far as it could be reached.
        needed = min(needed, size + evidence.in_trial)
    return _Sample(
        bad=bad,
        size=size,
        cut=evidence.cut,
        unheard=evidence.offered + evidence.in_trial,
        waiting=(evidence.in_trial > 0 and now < trial_until)
        or (evidence.offered > 0 and not patience_over),
        patience_over=patience_over,
        needed=max(1, needed),
    )


def _errors_fail(sample: _Sample, spec: GateSpec) -> bool:
    if sample.rate <= spec.max_error_rate:
        return False
    if sample.size >= sample.cut and sample.bad == sample.size:
        return True  # the whole wave has spoken, and no device is well
    if sample.size < sample.needed and not sample.patience_over:
        return False
    return lower_bound(sample.bad, sample.size) > spec.max_error_rate


def _error_reason(evidence: Evidence, sample: _Sample, spec: GateSpec) -> tuple[str, str]:
    if evidence.exposed == 0:
        return (
            REFUSED_BY_DEVICES,
            f"{sample.bad} of {sample.size} devices would not activate it; none did.",
        )
    bound = lower_bound(sample.bad, sample.size)
    text = (
        f"{sample.bad} of {sample.size} failed: at least {bound:.1%} with 95 % confidence, "
        f"{spec.max_error_rate:.1%} is allowed."
    )
    return ERROR_RATE, text


def _confidence_drop(evidence: Evidence, spec: GateSpec) -> float | None:
    """How far the canary's mean lies below the control's; None while either says too little."""
    canary, control = evidence.canary, evidence.control
    if canary.confidence_mean is None or control.confidence_mean is None:
        return None
    if min(canary.requests, control.requests) < spec.min_requests:
        return None
    return control.confidence_mean - canary.confidence_mean


def _devices(count: int) -> str:
    return "device" if count == 1 else "devices"


@lru_cache(maxsize=4096)
def lower_bound(failed: int, size: int, alpha: float = ALPHA) -> float:
    """The one-sided Clopper-Pearson lower bound of a rate: ``failed`` of ``size``.

    The p at which P(X >= failed | size, p) = alpha (Clopper, Pearson: "The use of confidence or
    fiducial limits", Biometrika 1934), by bisection on the exact tail.
    """
    if failed <= 0:
        return 0.0
    if failed >= size:
        return math.exp(math.log(alpha) / size)
    low, high = 0.0, failed / size
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if upper_tail(failed, size, middle) < alpha:
            low = middle
        else:
            high = middle
    return low


def upper_tail(failed: int, size: int, rate: float) -> float:
    """P(X >= failed) of a binomial, for 0 < failed < size and ``rate`` up to failed / size.

    It equals the regularised incomplete beta function I_rate(failed, size - failed + 1), here by
    its continued fraction (Abramowitz and Stegun 26.5.8) after Lentz, which converges fast on this
    side of the mean; logarithms keep it exact up to millions of devices.
    """
    if rate <= 0:
        return 0.0
    a, b = float(failed), float(size - failed + 1)
    front = math.exp(
        math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        + a * math.log(rate)
        + b * math.log1p(-rate)
    )
    return front * _beta_fraction(a, b, rate) / a


def _beta_fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _FRACTION_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / _away_from_zero(1.0 + even * d)
        c = _away_from_zero(1.0 + even / c)
        value *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 / _away_from_zero(1.0 + odd * d)
        c = _away_from_zero(1.0 + odd / c)
        value *= d * c
        if abs(d * c - 1.0) < 1e-14:
            return value
    msg = f"the tail of {a:g} in {a + b - 1:g} at {x:g} did not converge"
    raise ArithmeticError(msg)


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
