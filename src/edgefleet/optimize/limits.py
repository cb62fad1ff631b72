"""Limits of a release folder, of folders of profiles, and of optimising."""

from typing import Final

RELEASE_FILE_BYTES: Final = 64 << 10
VARIANTS: Final = 32
NOTES_CHARS: Final = 2_000
CLASS_FILES: Final = 32  # outputs with names of classes
BATCH: Final = 4_096
MEMORY_LIMIT_MIB: Final = 1 << 20
PROFILES: Final = 256  # of one folder

# Of optimising.
DATA_BYTES: Final = 4 << 30  # of a file with calibration or evaluation data, and of its arrays
CALIBRATION_CASES: Final = 2_000  # evenly chosen, if there are more
EVALUATION_CASES: Final = 100_000
IMAGE_FILES: Final = 100_000  # of a folder
IMAGE_BYTES: Final = 64 << 20
IMAGE_PIXELS: Final = 1 << 26
CHILD_REQUEST_BYTES: Final = 16 << 20
CHILD_TIME_S: Final = 1_800.0
CHILD_LEFT_BYTES: Final = 512 << 20  # of free memory, that children leave to other programs
LATENCY_RUNS: Final = 300
LATENCY_LEAST_RUNS: Final = 15
LATENCY_S: Final = 20.0  # about, for all candidates of a runtime together
