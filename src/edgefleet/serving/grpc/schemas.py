"""The small messages of inference.GRPCInferenceService and grpc.health.v1, as tables.

Source: github.com/triton-inference-server/common (protobuf/grpc_service.proto, model_config.proto)
and github.com/grpc/grpc (src/proto/grpc/health/v1/health.proto).
"""

from typing import Final

from edgefleet.serving.grpc.protobuf import Field, Schema

EMPTY: Final[Schema] = {}
LIVE: Final[Schema] = {1: Field("live", "bool")}
READY: Final[Schema] = {1: Field("ready", "bool")}
NAMED: Final[Schema] = {1: Field("name", "string"), 2: Field("version", "string")}
"""ModelReadyRequest, ModelMetadataRequest, ModelConfigRequest and ModelStatisticsRequest."""

SERVER_METADATA: Final[Schema] = {
    1: Field("name", "string"),
    2: Field("version", "string"),
    3: Field("extensions", "string", repeated=True),
}

_TENSOR: Final[Schema] = {
    1: Field("name", "string"),
    2: Field("datatype", "string"),
    3: Field("shape", "int64", repeated=True),
}
MODEL_METADATA: Final[Schema] = {
    1: Field("name", "string"),
    2: Field("versions", "string", repeated=True),
    3: Field("platform", "string"),
    4: Field("inputs", _TENSOR, repeated=True),
    5: Field("outputs", _TENSOR, repeated=True),
}

_INPUT: Final[Schema] = {
    1: Field("name", "string"),
    2: Field("data_type", "enum"),
    4: Field("dims", "int64", repeated=True),
}
_OUTPUT: Final[Schema] = {
    1: Field("name", "string"),
    2: Field("data_type", "enum"),
    3: Field("dims", "int64", repeated=True),
}
_GROUP: Final[Schema] = {
    1: Field("name", "string"),
    2: Field("count", "int32"),
    4: Field("kind", "enum"),
}
_PARAMETER: Final[Schema] = {1: Field("string_value", "string")}
_CONFIG: Final[Schema] = {
    1: Field("name", "string"),
    2: Field("platform", "string"),
    4: Field("max_batch_size", "int32"),
    5: Field("input", _INPUT, repeated=True),
    6: Field("output", _OUTPUT, repeated=True),
    7: Field("instance_group", _GROUP, repeated=True),
    14: Field("parameters", _PARAMETER, map=True),
    17: Field("backend", "string"),
}
MODEL_CONFIG: Final[Schema] = {1: Field("config", _CONFIG)}
CONFIG_TYPES: Final = {
    "TYPE_BOOL": 1, "TYPE_UINT8": 2, "TYPE_UINT16": 3, "TYPE_UINT32": 4, "TYPE_UINT64": 5,
    "TYPE_INT8": 6, "TYPE_INT16": 7, "TYPE_INT32": 8, "TYPE_INT64": 9, "TYPE_FP16": 10,
    "TYPE_FP32": 11, "TYPE_FP64": 12, "TYPE_STRING": 13, "TYPE_BF16": 14,
}  # fmt: skip
"""The numbers of DataType in a model configuration."""
CONFIG_KINDS: Final = {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2, "KIND_MODEL": 3}
"""The numbers of Kind in an instance group."""

_DURATION: Final[Schema] = {1: Field("count", "uint64"), 2: Field("ns", "uint64")}
_DURATIONS: Final[Schema] = {
    1: Field("success", _DURATION),
    2: Field("fail", _DURATION),
    3: Field("queue", _DURATION),
    4: Field("compute_input", _DURATION),
    5: Field("compute_infer", _DURATION),
    6: Field("compute_output", _DURATION),
    7: Field("cache_hit", _DURATION),
    8: Field("cache_miss", _DURATION),
}
_BATCH: Final[Schema] = {
    1: Field("batch_size", "uint64"),
    2: Field("compute_input", _DURATION),
    3: Field("compute_infer", _DURATION),
    4: Field("compute_output", _DURATION),
}
_MEMORY: Final[Schema] = {
    1: Field("type", "string"),
    2: Field("id", "int64"),
    3: Field("byte_size", "uint64"),
}
_STATISTICS: Final[Schema] = {
    1: Field("name", "string"),
    2: Field("version", "string"),
    3: Field("last_inference", "uint64"),
    4: Field("inference_count", "uint64"),
    5: Field("execution_count", "uint64"),
    6: Field("inference_stats", _DURATIONS),
    7: Field("batch_stats", _BATCH, repeated=True),
    8: Field("memory_usage", _MEMORY, repeated=True),
}
MODEL_STATISTICS: Final[Schema] = {1: Field("model_stats", _STATISTICS, repeated=True)}

INDEX_REQUEST: Final[Schema] = {1: Field("repository_name", "string"), 2: Field("ready", "bool")}
_INDEX_ENTRY: Final[Schema] = {
    1: Field("name", "string"),
    2: Field("version", "string"),
    3: Field("state", "string"),
    4: Field("reason", "string"),
}
INDEX: Final[Schema] = {1: Field("models", _INDEX_ENTRY, repeated=True)}
LOAD: Final[Schema] = {1: Field("repository_name", "string"), 2: Field("model_name", "string")}
"""RepositoryModelLoadRequest and RepositoryModelUnloadRequest; parameters are not read."""

_TRACE_VALUE: Final[Schema] = {1: Field("value", "string", repeated=True)}
TRACE: Final[Schema] = {
    1: Field("settings", _TRACE_VALUE, map=True),
    2: Field("model_name", "string"),
}
_LOG_VALUE: Final[Schema] = {
    1: Field("bool_param", "bool", explicit=True),
    2: Field("uint32_param", "uint32", explicit=True),
    3: Field("string_param", "string", explicit=True),
}
LOG: Final[Schema] = {1: Field("settings", _LOG_VALUE, map=True)}

HEALTH_REQUEST: Final[Schema] = {1: Field("service", "string")}
HEALTH: Final[Schema] = {1: Field("status", "enum")}
