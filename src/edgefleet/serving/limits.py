"""Bounds of the serving process, sized for a device with 512 MiB."""

from typing import Final

from edgefleet.http1.limits import ConnectionLimits

INFERENCE: Final = ConnectionLimits(
    body_bytes=16 << 20, held_bytes=64 << 20, connections=256, idle_s=120.0, drain_s=10.0
)
CONTROL: Final = ConnectionLimits(body_bytes=1 << 20, connections=16)

TENSORS: Final = 64  # in one request, and outputs asked for
RANK: Final = 16
ID_CHARS: Final = 256
JSON_HEAD_BYTES: Final = 16 << 20  # the JSON part of a request with binary tensors

SKETCH_BUCKETS: Final = 64  # of latency, that a sketch carries
QUEUED: Final = 32  # inferences that wait for the worker; one more gets 503
INLINE_US: Final = 1_000  # a model that answers within this runs on the event loop
WARM_UP_RUNS: Final = 3
PROVE_STDIN_BYTES: Final = 1 << 20
DETAIL_CHARS: Final = 300

# Of files that publishers send; the hub reads them too.
MODEL_BYTES: Final = (1 << 31) - 1  # protobuf's own limit
MODEL_FIELDS: Final = 10_000  # at the top level: operator sets, functions, metadata
GOLDEN_BYTES: Final = 64 << 20
GOLDEN_UNPACKED_BYTES: Final = 256 << 20
GOLDEN_ARRAYS: Final = 2 * TENSORS + 1
GOLDEN_CASES: Final = 100_000
PICKLE_HEAD_BYTES: Final = 1 << 20
PICKLE_SURE_OPS: Final = 1_000  # as many valid operations in a row are no accident
