"""In the child: boosted trees of XGBoost and LightGBM as ONNX, with onnxmltools."""

# pyright: reportMissingImports=false

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgefleet.base.errors import PublisherError
from edgefleet.base.texts import shortened
from edgefleet.optimize.inputs.plain_session import onnx_session
from edgefleet.optimize.samples import Array
from edgefleet.serving.limits import DETAIL_CHARS

_OPSET: Final = 15  # the highest of onnxmltools 1.16
_CASES: Final = 512
_AGREE: Final = 1e-3  # of the range of an answer
_SHARE: Final = 0.99  # of cases; others may lie between a threshold in FP64 and the same in FP32
_Predict = Callable[[Array], Any]


def convert_trees(kind: str, path: Path, made: Path) -> dict[str, object]:
    """Write the model as the ONNX file ``made``: input ``X``, FP32, with an open batch.

    The file is run beside the model on random inputs. Returns the names of columns and the
    objective. Raises PublisherError ``model_unsupported`` for a model that the converter cannot
    convert or converts wrongly, ``not_a_model`` for a damaged file.
    """
    from onnxmltools import convert_lightgbm, convert_xgboost  # noqa: PLC0415
    from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415

    try:
        booster, columns, predict, thresholds = (_xgboost if kind == "xgboost" else _lightgbm)(path)
    except Exception as error:
        raise PublisherError(
            "not_a_model", f"{path.name} cannot be loaded: {_words(error)}", field="model"
        ) from error
    types: Any = [("X", FloatTensorType([None, len(columns)]))]
    try:
        model: Any = (
            convert_xgboost(booster, initial_types=types, target_opset=_OPSET)
            if kind == "xgboost"
            else convert_lightgbm(booster, initial_types=types, target_opset=_OPSET, zipmap=False)
        )
    except Exception as error:
        raise _unsupported(path, f"onnxmltools cannot convert it: {_words(error)}") from error
    for output in model.graph.output:  # onnxmltools gives the labels of LightGBM a fixed batch
        output.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    made.write_bytes(model.SerializeToString())
    _check(path, made, predict, _inputs(thresholds, len(columns)))
    return {"columns": columns}


def _xgboost(path: Path) -> tuple[Any, list[str], _Predict, list[Array]]:
    import xgboost  # noqa: PLC0415

    booster = xgboost.Booster()
    booster.load_model(path)
    count = booster.num_features()
    columns = list(booster.feature_names or (f"f{number}" for number in range(count)))
    booster.feature_names = None  # the converter knows f0, f1, ... only
    places: list[list[float]] = [[] for _ in columns]
    waiting: list[Any] = [json.loads(tree) for tree in booster.get_dump(dump_format="json")]
    while waiting:
        node = waiting.pop()
        waiting += node.get("children", ())
        if isinstance(node.get("split_condition"), int | float):
            places[int(node["split"].removeprefix("f"))].append(float(node["split_condition"]))

    def predict(inputs: Array) -> Any:
        return booster.inplace_predict(inputs)

    return booster, columns, predict, [np.array(one) for one in places]


def _lightgbm(path: Path) -> tuple[Any, list[str], _Predict, list[Array]]:
    import lightgbm  # noqa: PLC0415

    booster = lightgbm.Booster(model_file=path)
    columns = list(booster.feature_name())
    places: list[list[float]] = [[] for _ in columns]
    waiting = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    while waiting:
        node = waiting.pop()
        if "split_feature" not in node:
            continue
        waiting += [node["left_child"], node["right_child"]]
        if isinstance(node["threshold"], int | float):
            places[node["split_feature"]].append(float(node["threshold"]))
    return booster, columns, booster.predict, [np.array(one) for one in places]


def _inputs(thresholds: list[Array], count: int) -> Array:
    """Random inputs on both sides of the thresholds."""
    random = np.random.default_rng(7)
    inputs = np.zeros((_CASES, count))
    for number, values in enumerate(thresholds):
        if values.size:
            span = float(np.ptp(values)) or abs(float(values[0])) or 1.0
            inputs[:, number] = random.choice(values, _CASES) + span * random.normal(0, 0.1, _CASES)
    return inputs.astype(np.float32)


def _check(path: Path, made: Path, predict: _Predict, inputs: Array) -> None:
    session = onnx_session(made)
    wanted = np.asarray(predict(inputs), np.float64).reshape(len(inputs), -1)
    answers: Any = session.run(None, {"X": inputs})
    got = np.asarray(answers[-1], np.float64).reshape(len(inputs), -1)
    if got.shape[1] == 2 and wanted.shape[1] == 1:  # one probability of two
        got = got[:, 1:]
    if got.shape != wanted.shape:
        raise _unsupported(
            path,
            f"the converted model gives {got.shape[1]} values for a case, and the model "
            f"{wanted.shape[1]}.",
        )
    span = float(np.ptp(wanted)) or 1.0
    right = float((np.abs(got - wanted).max(axis=1) <= _AGREE * span).mean())
    if not right >= _SHARE:
        raise _unsupported(
            path, f"the converted model gives the same answer to {right:.1%} of random inputs only."
        )


def _words(error: Exception) -> str:
    first = str(error).partition("\nStack trace")[0]  # XGBoost adds its own
    return shortened(" ".join(first.split()), DETAIL_CHARS)


def _unsupported(path: Path, words: str) -> PublisherError:
    return PublisherError(
        "model_unsupported",
        f"{path.name} cannot be used: {words}",
        field="model",
        hint="Use another objective, other split types or another version of the converter, or "
        "export the model to ONNX yourself.",
    )
