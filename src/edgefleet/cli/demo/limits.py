"""Limits of the demo: small enough for a run of at most 90 s on two cores."""

from typing import Final

from edgefleet.protocol.rollout import ExposureSpec, GateSpec

INTERVAL_S: Final = 1.5
TICK_S: Final = 0.5
GATE: Final = GateSpec(
    soak_s=1.0,
    confirm_after_s=2.0,
    silence_s=15.0,
    patience_s=12.0,
    max_latency_increase=10.0,  # high, as the demo keeps every core busy
    min_requests=20,
)

BAKE_S: Final = 5.0

UPDATE: Final = ExposureSpec(growth=2.0, ceiling=0.5)  # fewer steps from the canary to the fleet
FIRST_INSTALL: Final = ExposureSpec(first=250, ceiling=0.5)  # more at once: it replaces nothing

FIRST_WAVE: Final = 11  # devices at least: a verdict needs five, and five of eleven are online
REACHABLE: Final = 0.85  # share of the fleet that must be online before the first rollout

START_TIMEOUT_S: Final = 30.0  # for a program to print its first line
ENROL_TIMEOUT_S: Final = 120.0
PUBLISH_TIMEOUT_S: Final = 120.0
CHAPTER_TIMEOUT_S: Final = 120.0
SETTLE_TIMEOUT_S: Final = 30.0  # for the last devices to roll back
END_TIMEOUT_S: Final = 30.0  # for a program to exit after SIGTERM; an agent ends its serving first

POLL_EVERY_S: Final = 0.25
ASK_EVERY_S: Final = 0.02  # pause of a client between two requests
ASK_TIMEOUT_S: Final = 10.0
LOG_LINES: Final = 12  # of a program that crashed
