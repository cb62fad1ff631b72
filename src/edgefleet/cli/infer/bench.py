"""``edgefleet bench``: load on the inference port of a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from edgefleet.base.errors import OperatorError
from edgefleet.cli.command import verb
from edgefleet.cli.exits import Exit
from edgefleet.cli.infer.limits import (
    LOAD_CONNECTIONS,
    LOAD_RATE,
    LOAD_REQUESTS,
    LOAD_SECONDS,
)
from edgefleet.cli.infer.options import Given, check_outputs, inference_options
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.values import DURATION

if TYPE_CHECKING:
    from edgefleet.client.inference.client import InferenceClient
    from edgefleet.client.inference.tensors import EncodedRequest


@verb(
    "bench",
    hub=False,
    exits=(Exit.FAILED, Exit.REFUSED, Exit.NETWORK),
    examples=(
        "edgefleet bench digits",
        "edgefleet bench digits digit.png --connections 16 --duration 30s --json",
        "edgefleet bench detector --rate 200 --duration 1m --address camera-1:8500",
    ),
)
@click.argument("model", metavar="MODEL")
@click.argument("files", metavar="[FILE]...", nargs=-1)
@inference_options
@click.option(
    "--connections",
    type=click.IntRange(1, LOAD_CONNECTIONS),
    help="Connections. Default: 4 in a closed loop, 64 in an open loop.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, LOAD_RATE, min_open=True),
    help="Open loop: so many requests a second, whatever the answers. Default: a closed loop.",
)
@click.option(
    "--spacing",
    type=click.Choice(("poisson", "even")),
    default="poisson",
    help="Times of an open loop: as of independent clients, or evenly spaced.",
)
@click.option(
    "--duration", type=DURATION, default="10s", metavar="DURATION", help="How long to measure."
)
@click.option(
    "--requests", type=click.IntRange(1, LOAD_REQUESTS), help="End after so many requests."
)
@click.option(
    "--warm-up",
    type=DURATION,
    default="1s",
    metavar="DURATION",
    help="Load before the measurement.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 100_000),
    default=1,
    help="Items of a request without FILE; the values are random.",
)
@click.option("--seed", type=click.IntRange(0), default=1, help="Random seed of values and times.")
@pass_invocation
def bench(
    invocation: Invocation,
    /,
    *,
    model: str,
    files: tuple[str, ...],
    connections: int | None,
    rate: float | None,
    spacing: Any,
    duration: float,
    requests: int | None,
    warm_up: float,
    batch: int,
    seed: int,
    **given: Any,
) -> Exit:
    """Measure a model on a device: latency, throughput, and a histogram.

    Without --rate each connection sends its next request when its answer is here (closed loop): the
    throughput is what the device can do. With --rate requests are due at given times (open loop),
    and the latency of each begins when it was due: a slow answer counts in the latency of the
    requests behind it, too. Exits with 1 if a request failed.
    """
    from edgefleet.cli.infer.inputs import read_tensors
    from edgefleet.client.inference.client import InferenceClient
    from edgefleet.client.inference.load import LoadPlan, run_load
    from edgefleet.client.inference.load_report import load_lines
    from edgefleet.client.inference.tensors import encode_request, sample_tensors

    options = Given(**given)
    for name, value in (("--duration", duration), ("--warm-up", warm_up)):
        if value > LOAD_SECONDS or (name == "--duration" and not value):
            raise OperatorError(
                "setting_invalid",
                f"{name} is {value:g} s; up to {LOAD_SECONDS:g} s are allowed.",
                field=name,
            )
    client = InferenceClient(options.address, model, options.release, options.timeout)
    try:
        info = client.model()
        if files:
            tensors = read_tensors(files, info, options.scaling)
        else:
            tensors = sample_tensors(info, batch, seed)
        check_outputs(options.outputs, tuple(one.name for one in info.outputs))
        request = encode_request(
            tensors, info.inputs, outputs=options.outputs, binary=options.binary
        )
        answer, _ = client.infer(request)  # a request that is refused is no load
    finally:
        client.close()
    parts = urlsplit(client.url)
    if parts.scheme != "http" or parts.hostname is None or parts.port is None:
        raise OperatorError("setting_invalid", "bench speaks http only.", field="--address")
    plan = LoadPlan(
        parts.hostname,
        parts.port,
        _request_bytes(client, parts.netloc, request),
        connections or (4 if rate is None else 64),
        duration,
        requests=requests,
        rate=rate,
        spacing=spacing,
        seed=seed,
        warm_up_s=warm_up,
        timeout_s=options.timeout,
    )
    invocation.screen.note(f"Load on {client.url} for {warm_up + duration:g} s.")
    report = run_load(plan, answer.model or model, answer.release)
    invocation.screen.answer(report, load_lines(report))
    return Exit.FAILED if report.errors or not report.succeeded else Exit.DONE


def _request_bytes(client: InferenceClient, host: str, request: EncodedRequest) -> bytes:
    headers = {"Host": host, **request.headers, "Content-Length": str(len(request.body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {client.path}/infer HTTP/1.1\r\n{lines}\r\n".encode() + request.body
