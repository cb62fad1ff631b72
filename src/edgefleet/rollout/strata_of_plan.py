"""The strata of a plan: which devices are compared when they go dark."""

from collections.abc import Mapping

from edgefleet.protocol.rollout import RolloutSpec
from edgefleet.rollout.constraints.window import DEVICE, LABEL
from edgefleet.rollout.evidence.site_watch import Watched
from edgefleet.rollout.fleet.selector import parse


def watched(spec: RolloutSpec) -> Watched:
    """The strata of a plan: devices of one site with the same chance to begin.

    Waves with selectors, budgets by label and time windows give devices different chances.
    """
    selectors = tuple({wave.selector for wave in spec.waves if wave.selector})
    chosen = tuple(parse(selector) for selector in sorted(selectors))
    keys = [budget.label for budget in spec.budgets]
    if any(window.timezone == DEVICE for window in spec.windows):
        keys.append(LABEL)

    def stratum_of(labels: Mapping[str, str]) -> tuple[str, ...]:
        inside = "".join(str(int(one.matches(labels))) for one in chosen)
        return (labels.get(spec.site_label, ""), inside, *(labels.get(key, "") for key in keys))

    return Watched(
        site_label=spec.site_label,
        silence_s=spec.gate.silence_s,
        allowed=spec.gate.max_silent_rate,
        stratum_of=stratum_of,
    )
