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
SMALL_FLEET: Final = 30  # devices; up to here the exact boundary tests the failures
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
LIMIT_REQUESTS: Final = 20  # of a device before the absolute limits apply to it
REPORTS_CACHED: Final = 1 << 16  # distinct reports of models whose effect is cached
RELEASES_NAMED: Final = 16  # releases with their counts in the fleet of a plan
GROUPS: Final = 10_000  # groups of like devices in the fleet of a plan
LATE_BUCKETS: Final = 512  # buckets of a rollout, without those of its episodes
LATE_EPISODES: Final = 1024  # episodes of one rollout; a later one is a part of the last
BETS_STORED_S: Final = 60.0  # least time between two writes of the bets of a rollout
WINDOW_S: Final = 120.0  # shortest window of a bake: one observation
WINDOWS_IN_BAKE: Final = 12  # a short bake has shorter windows, so that it has at least so many
HISTORY_DEVICES: Final = 100  # finished devices of earlier rollouts, or they lift no limit
HISTORY_ROLLOUTS: Final = 5  # the last rollouts that count
YEAR_S: Final = 365 * 86_400.0  # the expected time to a false alarm of the watch after the bake
WINDOW_REQUESTS: Final = 10  # requests in a window before a device counts in it
CONTROL_DEVICES: Final = 2  # devices of a control before it can have a veto
FLAG_P: Final = 0.01  # a device is flagged if chance explains its bad requests with at most this
STRICT_P: Final = 1e-5  # likewise, strictly
WEALTH_MAX: Final = 1e12
BAKE_SAMPLE: Final = 4096  # canary devices whose requests are counted in the windows of a bake
CLEAN_WINDOWS: Final = 5  # windows within the limit that clear an alert
HOLDBACK_FLEET: Final = 100  # smallest fleet that holds devices back
HOLDBACK_DEVICES: Final = 3  # devices held back at least
