"""The work of a worker process: load one release, then run its requests one at a time."""

import contextlib
import mmap
import resource
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgefleet.base.errors import EdgefleetError
from edgefleet.protocol.release import Variant
from edgefleet.protocol.serving import ServedRelease
from edgefleet.protocol.wire import decode
from edgefleet.serving.cpu_use import RunClock
from edgefleet.serving.limits import WORKER_SLACK_MIB
from edgefleet.serving.loading import load_model
from edgefleet.serving.runtime import LoadedModel, Tensor, quantised_tensors, runtime_for
from edgefleet.serving.stats import memory_kib
from edgefleet.serving.worker_channel import (
    MESSAGE_BYTES,
    PLANS,
    RUN_COST,
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


class Worker:
    """A loaded release, and the loop that answers each message with one message."""

    def __init__(
        self,
        channel: socket.socket,
        areas: tuple[SharedArea, SharedArea],
        model: LoadedModel,
        variant: Variant,
        loaded: Loaded,
    ) -> None:
        self._channel = channel
        self._loaded = loaded
        self._area, self._bodies = areas
        self._model = model
        self._cpu = RunClock(model.threads)
        self._variant = variant
        self._plans: dict[bytes, _Plan] = {}

    def serve(self) -> None:
        """Answer the load, then run requests until the serving process closes the channel."""
        with contextlib.suppress(ConnectionError):
            self._send(self._loaded)
            while data := self._channel.recv(MESSAGE_BYTES):
                self._answer(data, self._model, self._variant)

    def _answer(self, data: bytes, model: LoadedModel, variant: Variant) -> None:
        plan = self._plans.get(data) or self._plan(data, variant)
        if plan.run is not None:
            self._cpu.start()
            began_ns = time.perf_counter_ns()
            try:
                plan.run()
            except EdgefleetError:
                plan.run, plan.fixed = None, False
            else:
                run_ns, cpu_ns = time.perf_counter_ns() - began_ns, self._cpu.stop()
                self._channel.send(RUN_COST.pack(run_ns, cpu_ns) + plan.made)
                return
        self._cpu.start()
        began_ns = time.perf_counter_ns()
        try:
            made = model.run(plan.inputs, plan.names)
        except EdgefleetError as error:
            self._send(Failed(error.code, error.message, error.field))
            return
        run_ns, cpu_ns = time.perf_counter_ns() - began_ns, self._cpu.stop()
        placed = self._place(plan, made, model, variant)
        self._channel.send(RUN_COST.pack(run_ns, cpu_ns) + placed)

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
        self._channel.send(RUN_COST.pack(0, 0) + encode_message(message))


def load(channel: socket.socket, memory: int, bodies: int) -> Worker | None:
    """Load the release that the first message names. None if it cannot be loaded."""
    areas = SharedArea(memory), SharedArea(bodies, mmap.ACCESS_READ)
    first = channel.recv(MESSAGE_BYTES)
    message = decode_message(first) if first else None
    if not isinstance(message, Load):
        return None
    wanted = decode(areas[0].read(message.size_bytes), ServedRelease)
    variant = wanted.variant
    _bound_memory(variant)
    golden = Path(wanted.golden_path) if wanted.golden_path else None
    try:
        runtime_for(variant).start()
        base_kib = memory_kib()
        model, times = load_model(Path(wanted.artifact_path), variant, golden=golden)
    except EdgefleetError as error:
        channel.send(
            RUN_COST.pack(0, 0) + encode_message(Failed(error.code, error.message, error.field))
        )
        return None
    return Worker(
        channel,
        areas,
        model,
        variant,
        Loaded(times.learnt(), base_kib, dict(quantised_tensors(model))),
    )


def _bound_memory(variant: Variant) -> None:
    bound = (variant.memory_limit_mib + WORKER_SLACK_MIB) << 20
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY or bound < most:
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
