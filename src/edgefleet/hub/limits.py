"""Bounds of the hub. Each name ends with its unit."""

from typing import Final

# The writer thread: queued jobs, and jobs in one commit.
WRITES_WAITING: Final = 20_000
WRITES_PER_COMMIT: Final = 2_000
LOCK_WAIT_S: Final = 2.0  # for another program that has locked the database
REOPEN_AFTER_S: Final = 1.0  # between attempts to open the database for writing

# Requests.
CHECKIN_BODY_BYTES: Final = 64 << 10
CHECKIN_IDLE_S: Final = 20.0  # then an idle connection is closed: most devices check in less often
CHECKIN_CONNECTIONS: Final = 50_000
OPERATOR_CONNECTIONS: Final = 5_000  # main listener: downloads, operators, the page
OPERATOR_HEAD_S: Final = (
    10.0  # from the connection or the first byte of a request to a complete head
)
OPERATOR_HEAD_BYTES: Final = 64 << 10  # of an incomplete head
RESERVED_FILES: Final = 200  # open files kept for blobs and the database
OUTCOMES_PER_DEVICE_HOUR: Final = 256  # a correct device sends a few for each attempt
JSON_BODY_BYTES: Final = 4 << 20
BODY_PAUSE_S: Final = 30.0  # longest pause between two pieces of one body
JSON_BODY_S: Final = 60.0  # for a complete body, except artifacts
LAST_REQUESTS_S: Final = 0.5  # for each request in progress when the hub stops
GRACEFUL_STOP_S: Final = 3.0
OVERLOAD_RETRY_S: Final = 5
WAITED_AT_MOST_S: Final = 1.0  # a check-in with a report, for the loop or for the writer
STRETCH_AFTER_S: Final = 0.1  # if a check-in waited so long, the poll interval is longer
STRETCHED_FOR_S: Final = 300.0  # and stays so for this time

# People.
USERS: Final = 10_000
TOKENS: Final = 10_000  # valid API tokens
TOKEN_KEPT_S: Final = 30 * 86_400.0  # in the list, after it ended
LAST_USED_S: Final = 60.0  # exactness of the last use of a token
HASHES_AT_ONCE: Final = 2  # passwords compared at the same time: each takes 32 MiB
HASHES_WAITING: Final = 16  # then a login is refused
SESSION_S: Final = 12 * 3600.0
SESSIONS: Final = 20_000
LOGIN_LINK_S: Final = 900.0
LOGIN_LINKS: Final = 100
LOGIN_PAUSE_S: Final = 300.0  # within which logins are counted
LOGINS_OF_USER: Final = 10  # failed ones within the pause
LOGINS_OF_ADDRESS: Final = 30  # likewise; many people may share an address
LOGINS_COUNTED: Final = 10_000  # users and addresses

# Artifacts.
ARTIFACT_BYTES: Final = 2 << 30
UPLOADS_AT_ONCE: Final = 8
COPY_BYTES: Final = 1 << 20

# Labels that wait for their devices.
TRUTH_PER_DEVICE: Final = 5_000
TRUTH_WAITING: Final = 50_000  # of all devices
TRUTH_KEPT_S: Final = 7 * 86_400.0  # for a device that does not check in

# Lists.
PROFILES: Final = 1_000
LABEL_SETS: Final = 100_000  # distinct sets of labels; then devices may report no new ones
SHARED_FACTS: Final = 10_000  # distinct facts kept once in memory for all devices
VARIANTS_PER_RELEASE: Final = 32
TRUSTED_KEYS: Final = 64
DEVICE_PAGE: Final = 100
DEVICE_PAGE_MAX: Final = 1_000
NAMES_READ: Final = 200_000  # of devices, for one completion
DEVICE_REPORTS: Final = 400  # in the history of a device
WATCHED_DEVICES: Final = 64  # devices with figures in memory: those that were asked for last
FIGURES_KEPT: Final = 120  # reports of each model of such a device
FIELD_RECORDS: Final = 2_000  # of a model, release and profile: latency and memory in the field
FIELD_DEVICE_BITS: Final = 1_024  # in each, to count devices
AUDIT_PAGE: Final = 100
AUDIT_PAGE_MAX: Final = 1_000
ROLLOUTS_SHOWN: Final = 100

# How often the changed standings are stored, and how many in one write.
STANDING_FLUSH_S: Final = 2.0
STANDINGS_PER_WRITE: Final = 5_000

# How often the pages of finished rollouts are stored, and how many are copied at one time.
SNAPSHOT_S: Final = 60.0
PAGES_AT_ONCE: Final = 4
FIELD_KEEP_S: Final = 60.0  # between two writes of the figures from the field

# The history chart of a rollout.
HISTORY_S: Final = 3_600
HISTORY_POINTS_SHOWN: Final = 240
HISTORY_POINTS_KEPT: Final = 720  # over a restart of the hub
HISTORY_STEP_S: Final = 1.0
UNKNOWN_DEVICES: Final = 10_000  # names kept of devices that a restored hub does not know
UNKNOWN_SHOWN: Final = 10
QUARANTINED_SHOWN: Final = 1000  # devices listed in one answer; the count covers all
