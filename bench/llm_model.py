"""Makes a small LLaMA model as GGUF, and its quantised files, in the environment of bench/llm.py.

The weights are random (a fixed seed): sizes, memory and speed are those of a trained model of that
shape, answers have no meaning. F16, Q8_0 and Q4_0 are written with the package gguf. Q4_K_M is
written with the kernels of llama.cpp itself (``ggml_quantize_chunk``), and its rules for which
matrices get Q6_K: the output, and attn_v and ffn_down of an eighth of the layers at both ends and
every third between.

    python bench/llm_model.py FOLDER LAYERS WIDTH
"""

import ctypes
import sys
from pathlib import Path

import gguf
import numpy as np
import xllamacpp

from edgefleet.optimize.gguf.quantise import quantise

HEAD, CONTEXT, VOCABULARY = 64, 2_048, 512
SPECIAL = ("<unk>", "<s>", "</s>")


def make(path: Path, layers: int, width: int) -> None:
    """The model in F16: ``width`` channels, feed-forward of three times as many."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(3 * width)
    writer.add_head_count(width // HEAD)
    writer.add_head_count_kv(width // HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _tokenizer(writer)
    drawn = np.random.default_rng(1)

    def matrix(name: str, rows: int, columns: int) -> None:
        values = drawn.normal(0, columns**-0.5, (rows, columns))
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))

    matrix("token_embd", VOCABULARY, width)
    for layer in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}", width, width)
        for name in ("ffn_gate", "ffn_up"):
            matrix(f"blk.{layer}.{name}", 3 * width, width)
        matrix(f"blk.{layer}.ffn_down", width, 3 * width)
        norm(f"blk.{layer}.attn_norm")
        norm(f"blk.{layer}.ffn_norm")
    norm("output_norm")
    matrix("output", VOCABULARY, width)
    _finish(writer)


def _tokenizer(writer: gguf.GGUFWriter) -> None:
    """Three special tokens, one for each byte, and pairs of letters up to the vocabulary."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [a + b for a in letters for b in letters]
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += pairs[: VOCABULARY - len(tokens)]
    types = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    types += [gguf.TokenType.BYTE] * 256
    types += [gguf.TokenType.NORMAL] * (VOCABULARY - len(types))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types)
    writer.add_vocab_size(VOCABULARY)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(False)


def make_k_quant(source: Path, made: Path, layers: int) -> None:
    """Q4_K_M, with the kernels of the llama.cpp inside of xllamacpp."""
    library = ctypes.CDLL(str(next(Path(xllamacpp.__file__).parent.glob("*.so"))))
    chunk = library.ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    floats = ctypes.POINTER(ctypes.c_float)
    chunk.argtypes = [
        ctypes.c_int, floats, ctypes.c_void_p, *[ctypes.c_int64] * 3, floats,
    ]  # fmt: skip
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(made, "llama")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture", "general.file_type")):
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        if tensor.data.ndim < 2:
            writer.add_tensor(tensor.name, tensor.data)
            continue
        kind = _k_quant(tensor.name, layers)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        values = np.ascontiguousarray(tensor.data, np.float32)
        rows, columns = values.shape
        packed = np.empty((rows, columns // block * size), np.uint8)
        chunk(kind, values.ctypes.data_as(floats), packed.ctypes.data, 0, rows, columns, None)
        writer.add_tensor(tensor.name, packed, raw_dtype=kind)
    _finish(writer)


def _k_quant(name: str, layers: int) -> gguf.GGMLQuantizationType:
    more = gguf.GGMLQuantizationType.Q6_K
    if name == "output.weight":
        return more
    if name.startswith("blk.") and ("attn_v" in name or "ffn_down" in name):
        layer, edge = int(name.split(".")[1]), layers // 8
        if layer < edge or layer >= 7 * layers // 8 or (layer - edge) % 3 == 2:
            return more
    return gguf.GGMLQuantizationType.Q4_K


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    folder, layers, width = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    source = folder / "F16.gguf"
    make(source, layers, width)
    for quant in ("Q8_0", "Q4_0"):
        quantise(source, folder / f"{quant}.gguf", quant)
    make_k_quant(source, folder / "Q4_K_M.gguf", layers)


if __name__ == "__main__":
    main()
