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
OPERATOR_WRITE_S: Final = 30.0  # without progress in sending an answer
PEER_SHARE: Final = 0.5  # of the connections of a listener, for one address
RESERVED_FILES: Final = 200  # open files kept for uploads and the database
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

# Long computations over the fleet, each in a process of its own, see ``forks``.
FORK_DEVICES: Final = 50_000  # with fewer, a computation takes at most about 10 ms
FORKS_AT_ONCE: Final = 1
FORKS_WAITING: Final = 16
FORK_S: Final = 30.0
# Rates of the operator API.
OPERATOR_REQUESTS_PER_S: Final = 200.0  # of each user, by default
UNAUTHENTICATED_PER_S: Final = 20.0  # requests without a valid token, of each address
BURST_S: Final = 5.0  # so many seconds' worth of requests at once
BUCKETS: Final = 10_000  # users and addresses

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
FAILED_LOGINS_S: Final = 60.0  # between two lines of the audit log about failed logins
FAILED_ADDRESSES: Final = 1_000  # counted apart for one line
FAILED_SHOWN: Final = 3  # users, and addresses, in one line

# Events and their streams.
EVENTS_KEPT: Final = 100_000  # the newest entries of the audit log
EVENTS_IN_MEMORY: Final = 1_000
EVENT_PAGE: Final = 200  # sent at a time
EVENTS_TOGETHER_S: Final = 0.05  # commits within this time wake the readers once
EVENT_STREAMS: Final = 64
EVENT_STREAMS_OF_ONE: Final = 8  # of one user
STREAM_CHECK_S: Final = 1.0  # between checks that the reader may still read
STREAM_HEARTBEAT_S: Final = 15.0
STREAM_RETRY_MS: Final = 2_000  # before a reader connects again
STREAM_SEND_S: Final = 10.0  # for one page of events; then the reader is cut
QUARANTINES_AT_ONCE: Final = 1_000  # devices put into the audit log in one tick

# Web hooks.
HOOKS: Final = 32
HOOK_TIMEOUT_S: Final = 10.0  # for a delivery, from the look-up of the name to the status
HOOK_STATUS_LINE_BYTES: Final = 8 << 10
HOOK_ATTEMPTS: Final = 10  # for one event, within about 9 to 17 minutes; then it is a dead letter
HOOK_RETRY_S: Final = 2.0  # before the second attempt; doubled for each further one
HOOK_RETRY_MAX_S: Final = 300.0
HOOK_IDLE_S: Final = 60.0
HOOK_DEFECT_PAUSE_S: Final = 60.0
HOOK_REPLAY_S: Final = 30.0  # for one command that replays dead letters
DEAD_LETTERS: Final = 1_000  # of a hook; then the oldest one is removed

# Artifacts.
ARTIFACT_BYTES: Final = 32 << 30
FREE_BYTES: Final = 1 << 30  # of the disk, not used by uploads
FREE_SHARE: Final = 0.05  # of a small disk, likewise
PARTS_KEPT: Final = 16  # of interrupted uploads
PART_KEPT_S: Final = 86_400.0
UPLOADS_AT_ONCE: Final = 8
COPY_BYTES: Final = 1 << 20
COLLECT_EVERY_S: Final = 3600.0  # then artifacts that no release names are removed, one a tick
UNNAMED_KEPT_S: Final = 86_400.0  # such an artifact, for a release to come
UNNAMED_KEPT_SHORT_S: Final = 3600.0  # if less than SHORT_SHARE of the disk is free
SHORT_SHARE: Final = 0.1
COLLECTED_SHOWN: Final = 100
DOWNLOADS_AT_ONCE: Final = 2_500  # slow devices take long; one that waits costs little
DOWNLOADS_OF_ONE: Final = 8  # of one device or person: some may be of broken connections
DOWNLOAD_FILES: Final = 2  # open files of a download, beside its connection
SEND_BYTES: Final = 1 << 20  # of one file, in one turn
SENDING_THREADS: Final = 4
PIECE_BYTES: Final = 64 << 10  # of a download over TLS, which has no sendfile

# The process that reads uploaded files, for one file of so many bytes, unpacked.
READER_MEMORY_BYTES: Final = 256 << 20
READER_MEMORY_FACTOR: Final = 6  # per byte; a sound ONNX file takes four to five to check
READER_CPU_S: Final = 20.0
READER_SPEED_BYTES: Final = 16 << 20  # a further second for so many
READER_SLACK_S: Final = 30.0  # to start
READER_IDLE_S: Final = 60.0  # then it ends

# Labels that wait for their devices.
TRUTH_PER_DEVICE: Final = 5_000
TRUTH_WAITING: Final = 50_000  # of all devices
TRUTH_KEPT_S: Final = 7 * 86_400.0  # for a device that does not check in

# Lists.
PROFILES: Final = 1_000  # in use
LABEL_SETS: Final = 100_000  # distinct sets of labels; then devices may report no new ones
NEW_KINDS_PER_DEVICE_DAY: Final = 16  # kits and label sets that no device had before
AGENT_VERSIONS: Final = 10_000  # told apart in lists of devices
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
