"""Limits of the agent: queues, retries, pauses and ages."""

from typing import Final

# Check-ins.
INTERVAL_S: Final = 60.0  # until the hub sets another
INTERVAL_MIN_S: Final = 0.05  # the least that the hub can set
INTERVAL_MAX_S: Final = 86_400.0
JITTER: Final = 0.2  # share of the interval, up or down
BOOT_SPREAD_S: Final = 10.0  # spreads first check-ins after a site's power returns
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_MAX_S: Final = 300.0
RETRY_AFTER_MAX_S: Final = 3_600.0  # the longest pause that a hub can ask for with Retry-After
BACKOFF_INTERVALS: Final = 4.0  # and at most this many intervals
SEQ_BLOCK: Final = 1024  # sequence numbers reserved by one write
OUTCOMES_PER_CHECKIN: Final = 16  # maximum of protocol.device.CheckIn
SPOOL_OUTCOMES: Final = 64
WINDOW_REQUESTS: Final = 100  # in a full window
WINDOW_LEAST_REQUESTS: Final = 20  # in a full window that is older than WINDOW_S
WINDOW_S: Final = 120.0
WARM_UP_S: Final = 30.0  # after a switch: caches fill, so latencies are not comparable
LATENCY_BUCKETS: Final = 64  # in a sketch, at most
TALLIES: Final = 3  # releases of a model with unsent telemetry, at most

# Cost: CPU time, memory, and the sensors of the board.
COST_WARM_UP_S: Final = 120.0  # after a switch: memory grows until the model is warm
COST_WINDOW_S: Final = 600.0
COST_SAMPLE_S: Final = 25.0  # between two readings in a window
COST_REQUESTS: Final = 50  # of both releases, before a trial judges their CPU time
COST_MARGIN: Final = 1.2  # of the plan's limit of CPU time, in a trial on one device
COST_LEAST_US: Final = 500  # of CPU time per request: a core that wakes up for each costs 300 more
TREND_SPACING_S: Final = 0.5  # between the first samples of memory in a trial
TREND_SAMPLES: Final = 32
TREND_LEAST: Final = 8  # samples of memory that show a growth
GROWTH_LEAST_MIB: Final = 4.0  # steady growth in a trial, more than the steps of an allocator

# An attempt.
DISK_RETRY_S: Final = 60.0
RETURN_RETRY_S: Final = 60.0  # after a failed revert
DAMAGE_DEFERRED: Final = 3  # mismatches of a download until its attempt counts as deferred
DAMAGE_REPEATED: Final = 2  # fresh downloads with the same wrong bytes, until the hub is told
DAMAGE_SAME: Final = 4  # fresh downloads with the same wrong bytes, until the release is refused
DAMAGE_INTERVALS: Final = 10.0  # check-in intervals between the first and the last of them
DAMAGE_GROWTH: Final = 4.0  # of the pause after each mismatch
DAMAGE_PAUSE_MAX_S: Final = 14_400.0
DAMAGE_PAUSE_INTERVALS: Final = 240.0  # and at most this many check-in intervals
ENDED_ATTEMPTS: Final = 16  # remembered, so that no failed offer is accepted again

# A trial.
MAX_ERROR_RATIO: Final = 0.05
ERROR_MIN_REQUESTS: Final = 10  # before the error ratio is judged
ERROR_ALPHA: Final = 1e-3  # how often a trial fails at this ratio by chance
MISSED_PROBES: Final = 3  # in a row; then serving counts as crashed
HUNG_LEAST_S: Final = 5.0  # age of a request at which a release may be found to hang
HUNG_TIMES: Final = 8.0  # and at least this many p95 latencies of the device
HUNG_MOST_S: Final = 30.0  # also if the usual latency is longer, or not known
UNSETTLED_SHARE: Final = 0.25  # of that age, from which no release is confirmed
SILENT_REQUESTS: Final = 10  # expected in a trial; without one the trial lasts longer
TRIAL_STRETCH: Final = 4.0  # a trial fails after this many confirm times (and the slack)
TRIAL_SLACK_S: Final = 30.0
NEIGHBOUR_REQUESTS: Final = 30  # of another model in a trial, before it is judged
NEIGHBOUR_SLOWDOWN: Final = 3.0  # largest ratio of another model's p95 latencies, after and before
LOAD_SPAN_S: Final = 60.0  # between the readings of the CPU that a trial is compared with
LOAD_LEAST_S: Final = 2.0  # shortest time over which CPU is compared
LOAD_LEAST_CORES: Final = 0.1  # smallest growth by which a trial can harm other models
LOAD_SHARE: Final = 0.5  # of the cores that were free without it, taken by a trial that harms
FOREIGN_FAILURES: Final = 3  # of an Apply, due to another model, until the trial ends

# The serving process.
PROBE_IDLE_S: Final = 5.0
PROBE_TRIAL_S: Final = 0.5
IDLE_S: Final = 10.0  # without a request, before a process of another version is replaced
RESTART_FIRST_S: Final = 0.5
RESTART_MAX_S: Final = 60.0
ENDS_NOTED: Final = 256  # latest ends of the serving process, at most
CRASHES_WITHIN_S: Final = 3600.0  # a model that crashes the process twice in it gets a worker

# Fetching.
FLUSH_BYTES: Final = 4 << 20  # of a download in memory between two writes
DISK_MARGIN_BYTES: Final = 1 << 20  # not used by downloads, but left for the state
RESERVE_BYTES: Final = 64 << 10  # freed if the disk has no room for the state
MANIFEST_BYTES: Final = 4 << 20
PROBLEM_BYTES: Final = 64 << 10  # of an error answer
REQUEST_S: Final = 10.0
SAVE_RETRY_S: Final = 1.0
DISK_CHECK_S: Final = 3600.0  # between two writes that only show whether the disk can be written

# The serving process and the proof.
CONTROL_S: Final = 2.0
SERVING_START_S: Final = 30.0
ACTIVATE_S: Final = 60.0
SERVING_STOP_S: Final = 10.0  # from SIGTERM to SIGKILL
SERVING_END_S: Final = 2.0  # the same for a process that hangs
STUCK_S: Final = 10.0  # for a request of a release that is taken out; then the process is ended
CLOSE_S: Final = 5.0  # for the download, and for the proof, when the agent stops
SERVING_LOG_BYTES: Final = 1 << 20
SOCKET_PATH_BYTES: Final = 107  # Linux sun_path without the final zero
PROVE_S: Final = 120.0
PROVE_SLACK_MIB: Final = 512  # interpreter and runtime, on top of the variant's memory limit
PROVE_OUTPUT_BYTES: Final = 1 << 20

# The status of the agent.
STATUS_S: Final = 2.0  # in which the loop answers
