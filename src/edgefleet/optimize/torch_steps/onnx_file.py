"""In the child: writes a model as an ONNX file with a batch of any size."""

# pyright: reportMissingImports=false

import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

from edgefleet.base.errors import PublisherError
from edgefleet.base.texts import shortened
from edgefleet.serving.limits import DETAIL_CHARS

OPSET: Final = 18
WEIGHTS_KEY: Final = "edgefleet.source_weights_sha256"


def write_onnx(model: Any, example: Mapping[str, Any], path: Path, weights_sha256: str) -> None:
    """Export ``model`` in evaluation mode. Equal models give equal bytes.

    ``example`` has a tensor for each input, in the order of the arguments, with two cases or more.
    Raises PublisherError ``model_unsupported`` with the words of the exporter.
    """
    import torch  # noqa: PLC0415

    if isinstance(model, torch.nn.Module):
        model.eval()
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    given = tuple(example.values())
    program = model
    try:
        with redirect_stdout(io.StringIO()), torch.no_grad():
            if isinstance(model, torch.jit.ScriptModule):
                _write_script(model, example, path)
            else:
                if isinstance(model, torch.nn.Module):
                    program = torch.export.export(
                        model, given, dynamic_shapes=[{0: batch} for _ in given], strict=False
                    )
                _check_program(program)
                torch.onnx.export(
                    program, given, path, dynamo=True, opset_version=OPSET, verbose=False,
                    input_names=list(example), external_data=False,
                )  # fmt: skip
    except PublisherError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())
        raise PublisherError(
            "model_unsupported",
            f"The export to ONNX failed: {shortened(words, DETAIL_CHARS) or type(error).__name__}",
            hint="Export the model with operators that ONNX has, and a batch of any size.",
        ) from error
    _clean(path, weights_sha256)


def _write_script(model: Any, example: Mapping[str, Any], path: Path) -> None:
    """TorchScript is traced by the older exporter: the newer one takes no ScriptModule."""
    import torch  # noqa: PLC0415

    names = list(example)
    with torch.no_grad():
        made = model(*example.values())
    outputs = [f"output_{at}" for at in range(len(made))] if isinstance(made, tuple) else ["output"]
    torch.onnx.export(
        model, tuple(example.values()), path, dynamo=False, opset_version=OPSET,
        input_names=names, output_names=outputs,
        dynamic_axes={name: {0: "batch"} for name in (*names, *outputs)},
    )  # fmt: skip


def _check_program(program: Any) -> None:
    """An ExportedProgram has fixed sizes unless its exporter said otherwise."""
    from torch.export.graph_signature import InputKind  # noqa: PLC0415

    users = [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind == InputKind.USER_INPUT
    ]
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in users:
            size = node.meta["val"].shape[0]
            if isinstance(size, int):
                raise PublisherError(
                    "model_unsupported",
                    f"The exported program takes a batch of exactly {size}.",
                    hint="Export it with dynamic_shapes=[{0: torch.export.Dim('batch')}].",
                )


def _clean(path: Path, weights_sha256: str) -> None:
    """Remove what is of this machine or contradicts shape inference: stack traces, shapes."""
    import onnx  # noqa: PLC0415

    model = onnx.load(path)
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    for one in (*model.graph.node, *model.graph.initializer):
        one.doc_string = ""
        del one.metadata_props[:]
    for one in (*model.graph.input, *model.graph.output):
        one.doc_string = ""
        del one.metadata_props[:]
        one.type.tensor_type.shape.dim[0].Clear()
        one.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.metadata_props[:]
    model.metadata_props.add(key=WEIGHTS_KEY, value=weights_sha256)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
