"""Bounds of the rollout engine."""

from typing import Final

WAVES: Final = 20
WINDOWS: Final = 32
CENSUS_KEPT_FROM: Final = 50_000  # devices in a wave that people see counted at most so often
CENSUS_KEPT_S: Final = 1.0
BUDGETS: Final = 8
SELECTOR_CHARS: Final = 1000
SELECTOR_REQUIREMENTS: Final = 32
REASONS_PER_ROLLOUT: Final = 32  # further ones are counted as "other"
LATENCY_DEVICES_PER_COHORT: Final = 1024  # whose p95 is remembered for the median
SCORES_PER_DEVICE: Final = 100  # that a device's mean confidence weighs in its cohort, at most
FIRST_NAMES: Final = 5  # devices that a wait names
LABEL_KEYS_NAMED: Final = 8  # in an error message
PUT_OFF_S: Final = 600.0  # until who put it off, and starts by itself, is offered it again
SEQ_MAX: Final = (1 << 63) - 1
SCORES_WAITING: Final = 256  # devices whose scores wait for one to be compared with
MUSTER_NOTES: Final = 64  # of how many had begun by when, kept of a rollout
LIMIT_REQUESTS: Final = 20  # in a report before a device is held to the absolute limits
GROUPS: Final = 10_000  # kinds of devices that a plan's fleet is told in
