"""One release in a process: ``python -m edgefleet.serving.worker SOCKET MEMORY BODIES``.

The arguments are inherited file descriptors. The serving process starts the worker, sends Load and
then one Run at a time; see ``worker_channel``. A model that crashes its runtime, uses too much
memory or never answers ends this process only. The worker ends with the serving process.
"""

import contextlib
import mmap
import os
import resource
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefleet.base.errors import EdgefleetError
from edgefleet.protocol.release import Variant
from edgefleet.protocol.serving import ServedRelease
from edgefleet.protocol.wire import decode
from edgefleet.serving.limits import WORKER_SLACK_MIB
from edgefleet.serving.runtime import LoadedModel, Tensor, runtime_for
from edgefleet.serving.stats import memory_kib
from edgefleet.serving.worker_channel import (
    MESSAGE_BYTES,
    PLANS,
    RUN_NS,
    Failed,
    Load,
    Loaded,
    Made,
    Run,
    SharedArea,
    decode_message,
    encode_message,
    end_of,
)

_OOM_SCORE: Final = Path("/proc/self/oom_score_adj")


@dataclass(slots=True)
class _Plan:
    """A request that was decoded.

    From its second time on, ``run`` infers into the views of the shared memory, and ``made`` is the
    answer. Outputs that are not as the first time end that: ``fixed`` is then False.
    """

    inputs: dict[str, Tensor]
    names: list[str]
    outputs: tuple[int, ...]
    end: int
    fixed: bool
    run: Callable[[], None] | None = None
    made: bytes = b""


class _Worker:
    """The loop of the process. It answers each message with one message."""

    def __init__(self, channel: socket.socket, area: SharedArea, bodies: SharedArea) -> None:
        self._channel = channel
        self._area = area
        self._bodies = bodies
        self._plans: dict[bytes, _Plan] = {}

    def serve(self) -> None:
        """Load the release and run requests until the serving process closes the channel."""
        first = self._channel.recv(MESSAGE_BYTES)
        load = decode_message(first) if first else None
        if not isinstance(load, Load):
            return
        wanted = decode(self._area.read(load.size_bytes), ServedRelease)
        variant = wanted.variant
        _bound_memory(variant)
        runtime = runtime_for(variant)
        try:
            runtime.start()
            base_kib = memory_kib()
            model = runtime.load(Path(wanted.artifact_path), variant)
        except EdgefleetError as error:
            self._send(Failed(error.code, error.message, error.field))
            return
        self._send(Loaded(model.run_us, base_kib))
        while data := self._channel.recv(MESSAGE_BYTES):
            self._answer(data, model, variant)

    def _answer(self, data: bytes, model: LoadedModel, variant: Variant) -> None:
        plan = self._plans.get(data) or self._plan(data, variant)
        if plan.run is not None:
            began_ns = time.perf_counter_ns()
            try:
                plan.run()
            except EdgefleetError:
                plan.run, plan.fixed = None, False
            else:
                run_ns = time.perf_counter_ns() - began_ns
                self._channel.send(RUN_NS.pack(run_ns) + plan.made)
                return
        began_ns = time.perf_counter_ns()
        try:
            made = model.run(plan.inputs, plan.names)
        except EdgefleetError as error:
            self._send(Failed(error.code, error.message, error.field))
            return
        run_ns = time.perf_counter_ns() - began_ns
        self._channel.send(RUN_NS.pack(run_ns) + self._place(plan, made, model, variant))

    def _plan(self, data: bytes, variant: Variant) -> _Plan:
        """Decode a request. A request with text is not kept."""
        message = decode_message(data)
        if not isinstance(message, Run):
            raise ConnectionError(f"unexpected message {message}")
        specs = [variant.inputs[one.index] for one in message.inputs]
        pairs = zip(specs, message.inputs, strict=True)
        plan = _Plan(
            inputs={
                spec.name: (self._bodies if one.in_body else self._area).tensor(one, spec.datatype)
                for spec, one in pairs
            },
            names=[variant.outputs[index].name for index in message.outputs],
            outputs=message.outputs,
            end=end_of(message.inputs),
            fixed=all(spec.datatype != "BYTES" for spec in specs),
        )
        if plan.fixed:
            if len(self._plans) >= PLANS:
                self._plans.clear()
            self._plans[data] = plan
        return plan

    def _place(
        self, plan: _Plan, made: list[Tensor], model: LoadedModel, variant: Variant
    ) -> bytes:
        """Write the outputs to the shared memory. Returns the message."""
        placed = self._area.place(made, plan.outputs, after=plan.end)
        message = encode_message(Made(placed))
        views: dict[str, Tensor] = {}
        for one, tensor in zip(placed, made, strict=True):
            if tensor.dtype != object:  # text is written already
                spec = variant.outputs[one.index]
                views[spec.name] = self._area.tensor(one, spec.datatype)
                views[spec.name][...] = tensor
        if plan.fixed and len(views) == len(made) and all(tensor.size for tensor in made):
            plan.run, plan.made = model.bind(plan.inputs, views), message
        return message

    def _send(self, message: Loaded | Failed) -> None:
        self._channel.send(RUN_NS.pack(0) + encode_message(message))


def main(arguments: Sequence[str]) -> int:
    """Serve until the channel is closed. See the top of this module."""
    descriptor, memory, bodies = (int(argument) for argument in arguments)
    channel = socket.socket(fileno=descriptor)
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()
    # If memory runs out, the system ends a worker before the serving process.
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text("1000")
    with contextlib.suppress(ConnectionError):
        _Worker(channel, SharedArea(memory), SharedArea(bodies, mmap.ACCESS_READ)).serve()
    return 0


def _end_with_parent(descriptor: int) -> None:
    """End this process when the channel is closed, also while the model runs."""
    closed = select.poll()
    closed.register(descriptor, select.POLLRDHUP)
    closed.poll()
    os._exit(0)


def _bound_memory(variant: Variant) -> None:
    bound = (variant.memory_limit_mib + WORKER_SLACK_MIB) << 20
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY or bound < most:
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
