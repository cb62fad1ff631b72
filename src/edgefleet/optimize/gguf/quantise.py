"""Writes Q8_0 and Q4_0 from a GGUF file in F16 or F32, with the package gguf of llama.cpp.

The K-quants (Q4_K_M) need llama.cpp itself. The package is not a dependency of edgefleet: it is
imported when it is needed.
"""

from pathlib import Path
from typing import Any, Final

from edgefleet.base.errors import PublisherError

QUANTS: Final = ("Q8_0", "Q4_0")
_SKIPPED: Final = ("GGUF.", "general.architecture", "general.file_type")


def quantise(source: Path, made: Path, quant: str) -> None:
    """Write ``made`` with the matrices of ``source`` in ``quant``. Vectors stay as they are.

    The same arguments give the same bytes. Raises PublisherError ``step_failed`` without the
    package, for another quant, or if a file is no GGUF.
    """
    if quant not in QUANTS:
        raise _failed(f"There is no {quant} here. There are {' and '.join(QUANTS)}.")
    try:
        import gguf  # type: ignore[import-not-found] # noqa: PLC0415 - for language models only
    except ImportError as error:
        raise _failed("The package gguf is not installed.", "Run: pip install gguf") from error
    try:
        reader = gguf.GGUFReader(source)
    except (OSError, ValueError) as error:
        raise _failed(f"{source.name} is no GGUF file: {error}.") from error
    writer = gguf.GGUFWriter(made, reader.fields["general.architecture"].contents())
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{quant}"])
    for field in reader.fields.values():
        if not field.name.startswith(_SKIPPED):
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    wanted = gguf.GGMLQuantizationType[quant]
    for tensor in reader.tensors:
        _add(gguf, writer, tensor, wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(gguf: Any, writer: Any, tensor: Any, wanted: Any) -> None:
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    data = tensor.data
    if data.ndim > 1 and data.shape[-1] % block == 0 and tensor.tensor_type.name in ("F16", "F32"):
        packed = gguf.quants.quantize(data.astype("float32"), wanted)
        writer.add_tensor(tensor.name, packed, raw_dtype=wanted)
    else:
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)


def _failed(message: str, hint: str | None = None) -> PublisherError:
    return PublisherError("step_failed", message, field="gguf", hint=hint)
