"""``edgefleet infer``: one inference on a device."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from edgefleet.base.errors import OperatorError
from edgefleet.cli.command import verb
from edgefleet.cli.exits import Exit
from edgefleet.cli.infer.options import Given, check_outputs, inference_options
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.values import FILE


@verb(
    "infer",
    hub=False,
    exits=(Exit.FAILED, Exit.REFUSED, Exit.NETWORK),
    examples=(
        "edgefleet infer digits digit.png",
        "edgefleet infer detector frame.npy --address 192.168.1.20:8500 --json",
        "edgefleet infer fusion image=frame.jpg state=state.json --output scores",
        "edgefleet infer gauge - --json",
    ),
)
@click.argument("model", metavar="MODEL")
@click.argument("files", metavar="FILE...", nargs=-1)
@inference_options
@click.option(
    "--top",
    type=click.IntRange(0, 1000),
    default=3,
    help="Show so many classes of class scores; 0 shows values.",
)
@click.option(
    "--classes",
    type=FILE,
    help="Text file with the names of the classes, one a line. Default: those of the release.",
)
@click.option("--id", "request_id", metavar="ID", help="Id of the request, to label it later.")
@pass_invocation
def infer(
    invocation: Invocation,
    /,
    *,
    model: str,
    files: tuple[str, ...],
    top: int,
    classes: Path | None,
    request_id: str | None,
    **given: Any,
) -> None:
    """Ask a model on a device for one answer, and show its outputs.

    Each FILE is JSON, .npy, .npz or an image, and - is standard input: the content shows the
    format. A model with several inputs needs NAME=FILE, or names inside JSON or .npz. JSON is a
    request of Open Inference Protocol v2, an object of values by input, or the values of one input.
    An image is resized to the input. The command asks the device itself, without a hub, and works
    with any other server of the protocol.
    """
    from edgefleet.cli.infer.inputs import read_tensors
    from edgefleet.cli.infer.show import infer_lines, infer_report
    from edgefleet.client.inference.client import InferenceClient
    from edgefleet.client.inference.tensors import encode_request

    options = Given(**given)
    own_names = _class_names(classes)
    client = InferenceClient(options.address, model, options.release, options.timeout)
    try:
        info = client.model()
        tensors = read_tensors(files, info, options.scaling)
        check_outputs(options.outputs, tuple(one.name for one in info.outputs))
        request = encode_request(
            tensors,
            info.inputs,
            outputs=options.outputs,
            binary=options.binary,
            request_id=request_id,
        )
        began = time.perf_counter()
        answer, headers = client.infer(request)
        took_s = time.perf_counter() - began
    finally:
        client.close()
    names = {one.name: own_names or one.classes for one in info.outputs}
    report = infer_report(answer, headers, took_s)
    invocation.screen.note(f"{client.url} answered in {took_s * 1000:.2f} ms.")
    if report.answered_by == "fallback":
        invocation.screen.note("The answer is that of the device's fallback.")
    invocation.screen.answer(report, infer_lines(answer, top, names))


def _class_names(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise OperatorError("bad_request", f"{path} is not UTF-8.", field="--classes") from error
