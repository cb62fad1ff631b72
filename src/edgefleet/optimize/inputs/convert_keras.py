"""In the child: Keras models and TensorFlow SavedModels as ONNX (tf2onnx) and TFLite files."""

# pyright: reportMissingImports=false, reportMissingModuleSource=false

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgefleet.base.errors import PublisherError
from edgefleet.base.texts import shortened
from edgefleet.optimize.inputs.keras_file import check_config, check_keras_file
from edgefleet.optimize.inputs.plain_session import onnx_session
from edgefleet.optimize.samples import Array
from edgefleet.serving.limits import DETAIL_CHARS

_OPSET: Final = 17
_BATCHES: Final = (1, 3)
_AGREE: Final = 1e-3  # of the range of an output
_SIZE: Final = 16  # of an axis whose size is open, other than the batch
_FORBIDDEN: Final = frozenset({
    "PyFunc", "PyFuncStateless", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles",
    "Save", "DebugIdentity", "DebugIdentityV2",
})  # fmt: skip


def convert_keras(kind: str, path: Path, made: Path) -> tuple[str, ...]:
    """Write ``model.onnx`` and, where TensorFlow can, ``model.tflite``, with the same names.

    Both are run beside the model on random inputs. Raises PublisherError ``model_unsupported``,
    ``not_a_model``.
    """
    import tensorflow as tf  # noqa: PLC0415 - 1.3 GiB

    saved = path if kind == "saved_model" else _exported(kind, path, made / "saved")
    _check_operators(saved)
    loaded: Any = tf.saved_model.load(str(saved))
    signature = loaded.signatures.get("serving_default")
    if signature is None:
        raise _unsupported(path, "it has no signature serving_default.")
    _to_onnx(path, saved, made / "model.onnx")
    files = ["model.onnx"]
    if _to_tflite(saved, made / "model.tflite"):
        files.append("model.tflite")
    _check(path, made, tuple(files), signature)
    return tuple(files)


def _exported(kind: str, path: Path, made: Path) -> Path:
    """A Keras file as a SavedModel. Layers that are code are refused before Keras reads them."""
    import keras  # noqa: PLC0415

    if kind == "keras":
        check_keras_file(path)
    else:
        check_config(_hdf5_config(path), path.name)
    try:
        model: Any = keras.saving.load_model(path, compile=False, safe_mode=True)
        model.export(made, format="tf_saved_model", verbose=False)
    except Exception as error:
        raise _unsupported(path, f"Keras cannot load and export it: {_words(error)}") from error
    return made


def _hdf5_config(path: Path) -> str:
    import h5py  # noqa: PLC0415 - of Keras

    try:
        with h5py.File(path, "r") as file:
            config: Any = file.attrs["model_config"]
    except (OSError, KeyError, ValueError) as error:
        raise PublisherError(
            "not_a_model",
            f"{path.name} is no Keras model in HDF5: {_words(error)}",
            field="model",
            hint="Save the whole model, not only its weights: model.save('model.keras').",
        ) from error
    return config if isinstance(config, str) else bytes(config).decode()


def _check_operators(saved: Path) -> None:
    """Refuse operators that call Python or use files."""
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: PLC0415

    proto: Any = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString((saved / "saved_model.pb").read_bytes())
    except Exception as error:
        raise PublisherError(
            "not_a_model", f"saved_model.pb is damaged: {_words(error)}", field="model"
        ) from error
    for meta in proto.meta_graphs:
        functions = [node for one in meta.graph_def.library.function for node in one.node_def]
        for node in (*meta.graph_def.node, *functions):
            if node.op in _FORBIDDEN:
                raise PublisherError(
                    "model_unsupported",
                    f"The SavedModel has the operator {node.op}, which runs code or uses files.",
                    field="model",
                    hint="Export the model without preprocessing in Python or from files.",
                )


def _to_onnx(path: Path, saved: Path, made: Path) -> None:
    """Inputs and outputs keep the names of the signature."""
    from tf2onnx import tf_loader  # noqa: PLC0415
    from tf2onnx.convert import _convert_common  # noqa: PLC0415

    try:
        graph, inputs, outputs, names = tf_loader.from_saved_model(
            str(saved), None, None, tag="serve", signatures=["serving_default"],
            return_tensors_to_rename=True,
        )  # fmt: skip
        model: Any
        model, _ = _convert_common(
            graph, name="model", opset=_OPSET, input_names=inputs, output_names=outputs,
            tensors_to_rename=names,
        )  # fmt: skip
    except Exception as error:
        raise _unsupported(path, f"tf2onnx cannot convert it: {_words(error)}") from error
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    made.write_bytes(model.SerializeToString())


def _to_tflite(saved: Path, made: Path) -> bool:
    """Write the TFLite file with the names of the signature. False if TensorFlow cannot."""
    import tensorflow as tf  # noqa: PLC0415
    from tensorflow.lite.tools import flatbuffer_utils  # noqa: PLC0415

    try:
        data: Any = tf.lite.TFLiteConverter.from_saved_model(str(saved)).convert()
    except Exception:  # noqa: BLE001 - of TensorFlow: the ONNX file remains
        return False
    model: Any = flatbuffer_utils.convert_bytearray_to_object(bytearray(data))
    for one in model.signatureDefs or ():
        tensors = model.subgraphs[one.subgraphIndex].tensors
        for entry in (*one.inputs, *one.outputs):
            tensors[entry.tensorIndex].name = entry.name
    made.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))
    return True


def _check(path: Path, made: Path, files: tuple[str, ...], signature: Any) -> None:
    """Compare the files with the model. Raises PublisherError ``model_unsupported``."""
    import tensorflow as tf  # noqa: PLC0415

    specs: Mapping[str, Any] = signature.structured_input_signature[1]
    random = np.random.default_rng(7)
    for batch in _BATCHES:
        inputs = {name: _values(spec, batch, random) for name, spec in specs.items()}
        wanted = {
            name: np.asarray(one)
            for name, one in signature(**{k: tf.constant(v) for k, v in inputs.items()}).items()
        }
        for file in files:
            run = _run_onnx if file.endswith(".onnx") else _run_tflite
            try:
                got = run(made / file, inputs)
            except Exception as error:
                raise _unsupported(
                    path, f"{file} fails with a batch of {batch}: {_words(error)}"
                ) from error
            for name, array in wanted.items():
                span = float(np.ptp(array)) or 1.0
                worst = float(np.abs(got[name].astype(float) - array.astype(float)).max())
                if not worst <= _AGREE * span:
                    raise _unsupported(
                        path,
                        f"{file} gives another answer than the model: {name!r} differs by "
                        f"{worst / span:.1%} of its range.",
                    )


def _values(spec: Any, batch: int, random: np.random.Generator) -> Array:
    shape = [batch, *(size or _SIZE for size in spec.shape.as_list()[1:])]
    kind = np.dtype(spec.dtype.as_numpy_dtype)
    values = random.normal(size=shape) if kind.kind == "f" else np.zeros(shape)
    return values.astype(kind)


def _run_onnx(path: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    session = onnx_session(path)
    names = [one.name for one in session.get_outputs()]
    answers: Any = session.run(names, dict(inputs))
    return dict(zip(names, answers, strict=True))


def _run_tflite(path: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    import tensorflow as tf  # noqa: PLC0415

    interpreter: Any = tf.lite.Interpreter(model_path=str(path))
    runner: Any = interpreter.get_signature_runner("serving_default")
    return {name: np.asarray(one) for name, one in runner(**inputs).items()}


def _words(error: Exception) -> str:
    return shortened(" ".join(str(error).split()), DETAIL_CHARS)


def _unsupported(path: Path, words: str) -> PublisherError:
    return PublisherError(
        "model_unsupported",
        f"{path.name} cannot be used: {words}",
        field="model",
        hint="Export the model where it was trained: model.export('model.onnx', format='onnx').",
    )
