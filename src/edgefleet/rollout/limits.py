"""Bounds of the rollout engine."""

from typing import Final

WAVES: Final = 20
WINDOWS: Final = 32
CENSUS_KEPT_FROM: Final = 50_000  # devices in a wave whose census is cached for readers
CENSUS_KEPT_S: Final = 1.0  # age up to which readers get the cached census
BUDGETS: Final = 8
ALPHA_LEAST: Final = 1e-9  # of a plan: every test can still reach the evidence that it needs
SELECTOR_CHARS: Final = 1000
SELECTOR_REQUIREMENTS: Final = 32
REASONS_PER_ROLLOUT: Final = 32  # further reasons are counted as "other"
LATENCY_DEVICES_PER_COHORT: Final = 1024  # devices whose p95 is kept for the median
SCORES_PER_DEVICE: Final = 100  # largest weight of a device in the mean confidence
REPORT_WEIGHT: Final = 100  # requests as which one report counts at most, in shown figures
FIRST_NAMES: Final = 5  # devices named in a wait
LABEL_KEYS_NAMED: Final = 8  # label keys named in an error message
MEMORY_NEEDS_NAMED: Final = 3  # different needs of memory in an error message
SEQ_MAX: Final = (1 << 63) - 1
SCORES_WAITING: Final = 256  # devices whose scores wait for a pair
NEIGHBOURS: Final = 64  # releases of other models that a rollout compares
OVERDUE_SAMPLES: Final = 64  # kept per rollout: (time, devices begun)
LIMIT_REQUESTS: Final = 20  # in a report before the absolute limits apply to a device
REPORTS_CACHED: Final = 1 << 16  # distinct reports of models whose effect is cached
RELEASES_NAMED: Final = 16  # releases with their counts in the fleet of a plan
GROUPS: Final = 10_000  # groups of like devices in the fleet of a plan
