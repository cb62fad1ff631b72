"""Asks a model for its answers to the inputs of a golden set, in the runtime of serving.

``python -m edgefleet.serving.answer`` reads an AnswerRequest as JSON from standard input and writes
the answers into an ``.npz`` file, as ``output.<name>``. The exit code is 1 if the model fails, and
standard error then ends with a Problem as JSON. It runs in a separate process, as a proof does.
"""

import sys
from pathlib import Path

import numpy as np

from edgefleet.base.errors import EdgefleetError
from edgefleet.protocol.release import Variant
from edgefleet.protocol.wire import Wire, decode, encode, problem
from edgefleet.serving.bf16 import numbers
from edgefleet.serving.golden_set import as_input, read_npz
from edgefleet.serving.limits import PROVE_STDIN_BYTES
from edgefleet.serving.loading import load_model
from edgefleet.serving.prove import answers_to


class AnswerRequest(Wire, frozen=True, kw_only=True):
    """The model, the file with its inputs as ``input.<name>``, and the file for the answers."""

    variant: Variant
    artifact_path: str
    inputs_path: str
    answers_path: str


def answer(request: AnswerRequest) -> None:
    """Write the answers. Raises the errors of ``Runtime.load``, ``inference_failed``."""
    variant = request.variant
    arrays = read_npz(Path(request.inputs_path))
    inputs = {
        spec.name: as_input(arrays[f"input.{spec.name}"], spec.datatype) for spec in variant.inputs
    }
    model = load_model(Path(request.artifact_path), variant, warm=False).model
    names = [spec.name for spec in variant.outputs]
    made, _ = answers_to(model, variant, inputs, names)
    texts = {spec.name for spec in variant.outputs if spec.datatype == "BYTES"}
    arrays = {
        f"output.{name}": array.astype(np.str_) if name in texts else numbers(array)
        for name, array in made.items()
    }
    np.savez_compressed(request.answers_path, allow_pickle=False, **arrays)


def main() -> int:
    """Read the request, write the answers. See the top of this module."""
    try:
        answer(decode(sys.stdin.buffer.read(PROVE_STDIN_BYTES), AnswerRequest))
    except EdgefleetError as error:
        sys.stderr.write(f"{encode(problem(error)).decode()}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
