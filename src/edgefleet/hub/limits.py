"""Bounds of the hub. Each name carries its unit."""

from typing import Final

# The writer: jobs waiting for a commit, and jobs in one commit.
WRITES_WAITING: Final = 20_000
WRITES_PER_COMMIT: Final = 2_000
LOCK_WAIT_S: Final = 2.0  # for another program that holds the database

# Requests.
CHECKIN_BODY_BYTES: Final = 64 << 10
CHECKIN_IDLE_S: Final = 20.0  # then a device's connection is closed: most rest far longer
CHECKIN_CONNECTIONS: Final = 50_000
OPERATOR_CONNECTIONS: Final = 5_000  # to the main listener: downloads, operators, the page
OPERATOR_HEAD_S: Final = 10.0  # from connecting, or the last answer's next byte, to a whole head
OPERATOR_HEAD_BYTES: Final = 64 << 10  # of a head that is not whole
RESERVED_FILES: Final = 200  # of those the process may open: blobs, the database
OUTCOMES_PER_DEVICE_HOUR: Final = 256  # an honest device has a few for each attempt
JSON_BODY_BYTES: Final = 4 << 20
BODY_PAUSE_S: Final = 30.0  # between two pieces of one body
JSON_BODY_S: Final = 60.0  # for a whole body that is not an artifact
LAST_REQUESTS_S: Final = 0.5  # what a request has left when the hub stops
GRACEFUL_STOP_S: Final = 3.0
OVERLOAD_RETRY_S: Final = 5

# Artifacts.
ARTIFACT_BYTES: Final = 2 << 30
UPLOADS_AT_ONCE: Final = 8
COPY_BYTES: Final = 1 << 20

# Lists.
PROFILES: Final = 1_000
SHARED_FACTS: Final = 10_000  # distinct ones that devices share in memory
VARIANTS_PER_RELEASE: Final = 32
TRUSTED_KEYS: Final = 64
DEVICE_PAGE: Final = 100
DEVICE_PAGE_MAX: Final = 1_000
AUDIT_PAGE: Final = 100
AUDIT_PAGE_MAX: Final = 1_000
ROLLOUTS_SHOWN: Final = 100

# What a device was last heard to run is written this often, and in pieces of this size.
STANDING_FLUSH_S: Final = 2.0
STANDINGS_PER_WRITE: Final = 5_000

# The picture of a rollout.
HISTORY_S: Final = 3_600
HISTORY_POINTS_SHOWN: Final = 240
HISTORY_STEP_S: Final = 1.0
QUARANTINED_SHOWN: Final = 1000  # devices in one answer; their count is whole
