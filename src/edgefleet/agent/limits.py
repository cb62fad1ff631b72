"""Bounds of the agent: every queue, retry, pause and age."""

from typing import Final

# Check-ins.
INTERVAL_S: Final = 60.0  # until the hub says otherwise
INTERVAL_MIN_S: Final = 0.05  # a hub that asks for more gets this
INTERVAL_MAX_S: Final = 86_400.0
JITTER: Final = 0.2  # of the interval, either way
BOOT_SPREAD_S: Final = 10.0  # a site whose power comes back does not call all at once
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_MAX_S: Final = 300.0
BACKOFF_INTERVALS: Final = 4.0  # and never more than so many intervals
SEQ_BLOCK: Final = 1024  # sequence numbers reserved by one write
OUTCOMES_PER_CHECKIN: Final = 16  # what protocol.device.CheckIn carries
SPOOL_OUTCOMES: Final = 64
WINDOW_REQUESTS: Final = 100  # a full window to compare with the one before it
WINDOW_LEAST_REQUESTS: Final = 20  # or so many, once it is so old:
WINDOW_S: Final = 120.0
LATENCY_BUCKETS: Final = 64  # that a sketch carries
TALLIES: Final = 3  # releases whose telemetry waits to be sent

# An attempt.
DISK_RETRY_S: Final = 60.0
RETURN_RETRY_S: Final = 60.0  # after the device could not go back as it was told
ENDED_ATTEMPTS: Final = 16  # remembered, so that the same offer is not taken twice

# A trial.
MAX_ERROR_RATIO: Final = 0.05
ERROR_MIN_REQUESTS: Final = 10  # before a ratio says anything
MISSED_PROBES: Final = 3  # in a row, then serving counts as crashed
TRIAL_STRETCH: Final = 4.0  # a trial that is not healthy after so many confirm times has failed
TRIAL_SLACK_S: Final = 30.0

# The serving process.
PROBE_IDLE_S: Final = 5.0
PROBE_TRIAL_S: Final = 0.5
RESTART_FIRST_S: Final = 0.5
RESTART_MAX_S: Final = 60.0

# Fetching.
FLUSH_BYTES: Final = 4 << 20  # held in memory between two writes of a download
DISK_MARGIN_BYTES: Final = 1 << 20  # never taken by a download: the state must fit
RESERVE_BYTES: Final = 64 << 10  # given up when even the state finds no room
MANIFEST_BYTES: Final = 4 << 20
PROBLEM_BYTES: Final = 64 << 10  # of an answer that is no file
REQUEST_S: Final = 10.0
SAVE_RETRY_S: Final = 1.0

# The serving process and the proof.
CONTROL_S: Final = 2.0
SERVING_START_S: Final = 30.0
ACTIVATE_S: Final = 60.0
SERVING_STOP_S: Final = 10.0
SERVING_LOG_BYTES: Final = 1 << 20
SOCKET_PATH_BYTES: Final = 107  # sun_path of Linux, without its end
PROVE_S: Final = 120.0
PROVE_SLACK_MIB: Final = 512  # interpreter and runtime, on top of the variant's memory limit
PROVE_OUTPUT_BYTES: Final = 1 << 20

# Enrolling, before there is a state.
ENROL_BACKOFF_MAX_S: Final = 60.0
