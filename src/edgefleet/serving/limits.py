"""Limits of the serving process, for a device with 512 MiB of memory.

``bounds.py`` has those that are settings: they replace fields of INFERENCE and GRPC.
"""

from typing import Final

from edgefleet.http1.limits import ConnectionLimits
from edgefleet.http2.limits import ConnectionLimits as StreamLimits

INFERENCE: Final = ConnectionLimits(
    body_bytes=32 << 20, buffered_bytes=64 << 20, connections=256, idle_s=120.0, drain_s=6.0
)
GRPC: Final = StreamLimits(connections=256, drain_s=6.0)
CONTROL: Final = ConnectionLimits(body_bytes=1 << 20, connections=16)

TENSORS: Final = 64  # inputs, or outputs, of one request
RANK: Final = 16
ID_CHARS: Final = 256
JSON_HEAD_BYTES: Final = 16 << 20  # the JSON part of a request with binary tensors
LONG_JSON_BYTES: Final = 1 << 20  # a larger JSON body is read in a thread
LONG_COMPRESSED_BYTES: Final = 128 << 10  # so is a larger compressed one
LONG_JSON_ELEMENTS: Final = 100_000  # an answer with more values is encoded in a thread
COMPRESSED_REPLY_BYTES: Final = 1 << 10  # a smaller reply is sent as it is
UNCOMPRESSED_REPLY_BYTES: Final = 4 << 20  # so is a larger one: it would delay other requests

ANSWERS_KEPT: Final = 65_536  # of each model, for labels that come later; 22 bytes an answer
RELEASES_REMEMBERED: Final = 255  # of each model, among these answers
SKETCH_BUCKETS: Final = 64  # buckets of latency in a sketch, at most
QUEUED: Final = (
    32  # inferences that wait for a model, if no setting names another number; above: 503
)
INLINE_US: Final = 1_000  # a faster model runs on the event loop, or is waited for in its worker
WARM_UP_RUNS: Final = 3
INPUT_SAMPLE: Final = 1024  # values of one request whose mean is taken; of more a sample
TICK_US: Final = 200  # a slower run gains nothing from a batch
LEARN_RUNS: Final = 3  # of one size, until the mean of their times is believed
SHARED_LOAD_BYTES: Final = 4 << 20  # a larger artifact would block requests of other models
BODY_MEMORY_BYTES: Final = 64 << 20  # addresses for large bodies that workers read in place
KEPT_BYTES: Final = 4 << 20  # memory for large requests that is kept for the next ones
WORKER_PATIENT_LOAD_S: Final = 15.0  # to load when a core has no other work; then without waiting
WORKER_LOAD_S: Final = 35.0  # together less than the agent's patience with one Apply
RETIRE_S: Final = 5.0  # for the requests of a release that was swapped out; then it is ended
CLOSE_S: Final = 1.0  # the same when the process stops, after ``drain_s``
STOP_S: Final = 9.0  # from SIGTERM to the end of the process, whatever a model does
WORKER_RUN_S: Final = 30.0  # one inference in a worker; then the worker is killed
PREVIOUS_S: Final = 600.0  # for which the release before a confirmed one stays loaded
SHADOW_BYTES: Final = 8 << 20  # inputs that are copied for a shadow; larger requests are skipped
SHADOW_DELAY_S: Final = 0.002  # from the reply to the caller until the shadow gets the request
SHADOW_RUN_S: Final = 20.0  # one run of a shadow, which gets a core only when it is idle
SHADOW_HUNG_SHARE: Final = 0.5  # of that time as CPU: then the candidate hangs
SHADOW_COMPARE_BYTES: Final = 64 << 10  # outputs that are compared on the event loop
WORKER_STOP_S: Final = 5.0
WORKER_EXIT_S: Final = 0.5  # until the threads of a worker that has closed its channel have ended
WORKER_SLACK_MIB: Final = 512  # interpreter and runtime, on top of the variant's memory limit
FALLBACK_FORWARDS: Final = 8  # forwarded requests in progress
FALLBACK_ANSWER_BYTES: Final = 16 << 20  # of one answer, and of all that are being received
FALLBACK_CONNECT_S: Final = 2.0
FALLBACK_KEPT: Final = 4  # idle connections
FALLBACK_IDLE_S: Final = 20.0  # of a kept connection: most servers wait longer
FALLBACK_BURST: Final = 10  # requests that the share of the budget allows at once
FALLBACK_FAILURES: Final = 3  # in a row, then the circuit breaker opens
FALLBACK_BACKOFF_S: Final = 1.0  # the first pause of the breaker; each further one is twice as long
FALLBACK_MOST_BACKOFF_S: Final = 60.0
FALLBACK_LEARNT: Final = 100  # answers of a release, until a percentile of its latency is believed
FALLBACK_RACING: Final = 64  # hedged requests whose local run has not ended
FALLBACK_RACING_BYTES: Final = 16 << 20  # of their bodies
FALLBACK_TOKEN_BYTES: Final = 8 << 10
OTHER_FILES: Final = 256  # open files beside connections: workers, models, control
PROVE_STDIN_BYTES: Final = 1 << 20
DETAIL_CHARS: Final = 300

# Limits of publishers' files, for devices and the hub.
MANIFEST_BYTES: Final = 4 << 20
MODEL_BYTES: Final = (1 << 31) - 1  # protobuf's limit
MODEL_FIELDS: Final = 10_000  # at the top level: operator sets, functions, metadata
GOLDEN_BYTES: Final = 64 << 20
GOLDEN_UNPACKED_BYTES: Final = 256 << 20
NPY_HEAD_BYTES: Final = 4 << 10
GOLDEN_ARRAYS: Final = 3 * TENSORS + 1
GOLDEN_CASES: Final = 100_000
PICKLE_HEAD_BYTES: Final = 1 << 20
PICKLE_SURE_OPS: Final = 1_000  # so many valid operations in a row are surely a pickle
