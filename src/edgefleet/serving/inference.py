"""The path of every inference, whatever the protocol of the client.

A protocol has a ``Codec``, which knows its bytes and nothing of releases, queues and counters. This
module knows nothing of bytes: it finds the release, has the codec read the request, infers, counts,
and has the codec encode the reply. So every protocol counts, refuses and swaps alike.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import msgspec
import numpy as np

from edgefleet.base.errors import DeviceError, EdgefleetError, NetworkError
from edgefleet.base.later import Later
from edgefleet.protocol.device import Refusal
from edgefleet.serving.active_release import Inferred, Release, ReleaseEnded
from edgefleet.serving.declared import batch_of, check_outputs
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.refused import Refused, shown
from edgefleet.serving.runtime import Tensor
from edgefleet.serving.tick import Tick, may_batch

Q = TypeVar("Q")
F = TypeVar("F")
R = TypeVar("R")
Q_contra = TypeVar("Q_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

_FAILS: Final = ("inference_failed", "overloaded", "timeout")


class Asked(msgspec.Struct, Generic[F], frozen=True):
    """A request, read: its inputs and the outputs that it wants of a release.

    ``inputs`` are arrays of the datatypes and shapes that the release declares; they may be views
    of the request's body. ``outputs`` are names of declared outputs, each once, in the order of the
    reply. ``form`` is the codec's own: what it needs to know to encode the reply. ``id`` is the
    client's id of the request; empty: the answer gets an id of this process. ``timeout_us``: the
    answer is of no use after this time in microseconds, counted from the start of the request. 0
    for no limit.
    """

    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    form: F
    id: str = ""
    timeout_us: int = 0


class Answered(msgspec.Struct, Generic[F], frozen=True):
    """The outputs of ``active`` for ``asked``, checked against its manifest, by name.

    ``made`` may also have the output of which the quality is measured. A tensor is valid until the
    codec returns: it may be a view of memory that the next request overwrites. ``id`` is that of
    the request, or a new one. ``generation`` is the number of the set of models.
    """

    active: Release
    asked: Asked[F]
    made: Mapping[str, Tensor]
    id: str
    generation: int


class Codec(Protocol[Q_contra, F, R_co]):
    """The forms of one protocol's requests and replies. It neither waits nor keeps a request.

    ``Q`` is a parsed request with a view of its body, as the transport of the protocol delivers it:
    ``http1.Request`` for REST, bytes with metadata for gRPC. ``R`` is a reply as this transport
    sends it: ``http1.Reply``, or a message with trailers. ``F`` is the codec's note from request to
    reply, see ``Asked.form``. Errors are no replies: they are raised through ``Inferences.infer``
    to the transport, which has a form for each EdgefleetError (its ``status`` is the HTTP status).
    """

    def read(self, request: Q_contra, active: Release) -> Asked[F]:
        """The inputs and wanted outputs of ``request``, checked against the release.

        Called again, with another release, if ``active`` ends before it answers. Raises
        EdgefleetError, which counts as a refusal of the release: Refused where the interface of the
        release matters, else OperatorError ``bad_request``.
        """
        ...

    def reply(self, answered: Answered[F]) -> R_co:
        """The encoded answer. Copies what it keeps of the tensors.

        Raises DeviceError ``inference_failed`` for an answer that the protocol cannot express: it
        counts as an error of the release. Any other EdgefleetError counts as a refusal.
        """
        ...


class _Waiting(msgspec.Struct, Generic[Q, F, R]):
    """A request that is asked of its release, alone or together with others. See ``tick.Queued``.

    ``began_ns`` and ``read_ns`` are readings of the performance counter, ``generation`` is the
    number of the set of models when the request began.
    """

    codec: Codec[Q, F, R]
    request: Q
    model: str
    version: str | None
    active: Release
    asked: Asked[F]
    inputs: dict[str, Tensor]
    began_ns: int
    read_ns: int
    generation: int
    run_outputs: tuple[str, ...]
    items: int
    reply: Later[R] | None = None


class _Run(msgspec.Struct, Generic[Q, F, R]):
    """One run and its answered requests, with the ids of their answers.

    Not all requests of a run may be answered: some may get an error instead. ``rows`` are then
    those of the answered requests.
    """

    inputs: Mapping[str, Tensor]
    made: Mapping[str, Tensor]
    made_ns: int  # less the time that was lost on the way to a worker and back
    served: Sequence[_Waiting[Q, F, R]]
    ids: Sequence[str]
    rows: Sequence[slice] = ()

    def without(self, replies: "Sequence[R | EdgefleetError]") -> "_Run[Q, F, R]":
        """The run without the requests that got an error as their reply."""
        ends = accumulate([one.items for one in self.served])
        left = [
            (one, id_, slice(end - one.items, end))
            for one, id_, end, reply in zip(self.served, self.ids, ends, replies, strict=True)
            if not isinstance(reply, EdgefleetError)
        ]
        served, ids, rows = zip(*left, strict=True) if left else ((), (), ())
        return _Run(self.inputs, self.made, self.made_ns, served, ids, rows)


class Inferences:
    """Answers the inference requests of all protocols from the releases of ``host``."""

    def __init__(self, host: ModelHost) -> None:
        self.host = host
        self._tick: Tick[_Waiting[Any, Any, Any]] = Tick(
            lambda: host.routes, self._answer_later, self._fail_later, self._ask_later
        )

    def find(self, model: str, version: str | None = None) -> Release:
        """The release that answers requests to ``model``. ``version`` is its name, or None.

        Raises DeviceError ``not_ready``, OperatorError ``not_found``, or Refused for another
        version.
        """
        active = self.host.routes.get(model)
        if active is None:
            raise self.host.not_served(model)
        if version is not None and version != active.release:
            raise Refused(
                Refusal.VERSION,
                f"The active release is {active.release}, not {version}.",
                code="not_found",
                field="version",
                sent=f"version {shown(version)}",
                wanted=f"{shown(active.release)} or none",
            )
        return active

    def infer(
        self, codec: Codec[Q, F, R], request: Q, model: str, version: str | None = None
    ) -> R | Awaitable[R]:
        """The reply now, or a coroutine that must be awaited once. Call it on the event loop.

        Raises EdgefleetError, now or from the coroutine: those of ``find``, of the codec and of
        ``Release.infer``, and NetworkError ``timeout``. Each one is counted.
        """
        began_ns = time.perf_counter_ns()
        try:
            active = self.find(model, version)
        except Refused as error:
            _count(self.host.routes[model], error, began_ns)
            raise
        generation = self.host.generation
        try:
            asked = codec.read(request, active)
            read_ns = time.perf_counter_ns()
            inputs, outputs = asked.inputs, asked.outputs
            quality = active.wanted.quality
            if quality is not None and quality.output not in outputs:
                outputs = (*outputs, quality.output)  # it is measured
            items = batch_of(inputs)
            waiting = _Waiting(
                codec, request, model, version, active, asked, inputs,
                began_ns, read_ns, generation, outputs, items,
            )  # fmt: skip
        except EdgefleetError as error:
            _count(active, error, began_ns)
            raise
        batched = not asked.timeout_us and may_batch(active, inputs, items)
        if batched and self._tick.collects():
            waiting.reply = Later()
            self._tick.add(waiting)
            return waiting.reply
        return self._infer_alone(waiting)

    def _infer_alone(self, one: _Waiting[Q, F, R]) -> R | Awaitable[R]:
        timeout_us = one.asked.timeout_us
        deadline_ns = timeout_us and one.began_ns + timeout_us * 1_000
        try:
            inferred = one.active.infer(one.inputs, one.run_outputs, deadline_ns)
        except EdgefleetError as error:
            _count(one.active, error, one.began_ns)
            raise
        except ReleaseEnded as end:
            return self._ask_again(one, end)
        if isinstance(inferred, tuple):
            return _reply_of(self._answer([one], one.inputs, inferred))
        return self._infer_in_turn(one, inferred)

    async def _infer_in_turn(
        self, waiting: _Waiting[Q, F, R], coming: "asyncio.Future[Inferred]"
    ) -> R:
        timeout_us = waiting.asked.timeout_us
        try:
            if timeout_us:
                await _in_time(coming, timeout_us, waiting.began_ns)
            inferred = await coming
        except EdgefleetError as error:
            _count(waiting.active, error, waiting.began_ns)
            raise
        except ReleaseEnded as end:
            again = self._ask_again(waiting, end)
            return await cast("Awaitable[R]", again) if isinstance(again, Awaitable) else again
        return _reply_of(self._answer([waiting], waiting.inputs, inferred))

    def _ask_again(self, one: _Waiting[Q, F, R], end: ReleaseEnded) -> R | Awaitable[R]:
        """Ask the release that requests go to now. A request that ended it is not asked twice."""
        release = one.active.release
        if end.ran and self.find(one.model, one.version).release == release:
            raise DeviceError(
                "inference_failed", f"Release {release} was ended while it ran this request."
            )
        return self.infer(one.codec, one.request, one.model, one.version)

    def _answer(
        self,
        group: Sequence[_Waiting[Q, F, R]],
        inputs: Mapping[str, Tensor],
        inferred: Inferred,
    ) -> list[R | EdgefleetError]:
        """Encode the outputs of one run for each request, and count each as served or as an error.

        ``inputs`` are those of the run. The way to a worker and back is no part of the latency, so
        that releases in trial and confirmed releases compare. The replies of a run are sent
        together: its requests share the time of their encoding.
        """
        tensors, lost_ns = inferred
        active = group[0].active
        made: dict[str, Tensor] = dict(zip(group[0].run_outputs, tensors, strict=True))
        made_ns = time.perf_counter_ns() - lost_ns
        try:
            check_outputs(active.outputs, made)
        except EdgefleetError as error:
            for one in group:
                _count(active, error, one.began_ns)
            return [error] * len(group)
        ids = [one.asked.id or self.host.answers.new_id() for one in group]
        replies: list[R | EdgefleetError] = []
        mine = made
        failed = False
        at = 0
        for one, request_id in zip(group, ids, strict=True):
            if len(group) > 1:
                mine = {}
                for name, each in made.items():
                    mine[name] = each[at : at + one.items]
                at += one.items
            answered = Answered(active, one.asked, mine, request_id, one.generation)
            try:
                replies.append(one.codec.reply(answered))
            except EdgefleetError as error:
                _count(active, error, one.began_ns)
                replies.append(error)
                failed = True
        run = _Run(inputs, made, made_ns, group, ids)
        if failed:
            run = run.without(replies)
        if run.served:
            took_us = _count_durations(run, time.perf_counter_ns() - lost_ns)
            self._record(run, took_us, whole=not failed)
        return replies

    def _record(self, run: _Run[Q, F, R], took_us: Sequence[int], *, whole: bool) -> None:
        """The telemetry of one run. Not ``whole``: some of its requests got an error instead."""
        active, inputs, made = run.served[0].active, run.inputs, run.made
        sizes = [one.items for one in run.served]
        if whole and (shadow := self.host.shadows.of.get(active.model)) is not None:
            shadow.offer(active, inputs, made, len(sizes), sum(sizes))
        if len(sizes) == 1:
            sizes = [1]
        first = inputs.get(active.inputs[0].name) if active.inputs else None
        if not whole and first is not None:
            first = _rows(first, run.rows)
        active.stats.succeeded_all(took_us, first, sizes)
        quality = active.wanted.quality
        if quality is None:
            return
        scores = made[quality.output] if whole else _rows(made[quality.output], run.rows)
        tops = active.stats.scored_all(scores, quality.scores, sizes)
        self.host.answers.add_all(active.model, active.release, run.ids, tops)

    def _answer_later(
        self,
        group: Sequence[_Waiting[Any, Any, Any]],
        inputs: Mapping[str, Tensor],
        inferred: Inferred,
    ) -> None:
        for one, reply in zip(group, self._answer(group, inputs, inferred), strict=True):
            if one.reply is not None:
                one.reply.settle(reply)

    def _fail_later(self, one: _Waiting[Any, Any, Any], error: Exception) -> None:
        if isinstance(error, ReleaseEnded):
            self._ask_later(one, error)
            return
        if isinstance(error, EdgefleetError):
            _count(one.active, error, one.began_ns)
        _settle(one, error)

    def _ask_later(self, one: _Waiting[Any, Any, Any], end: ReleaseEnded | None = None) -> None:
        """Ask the release that requests go to now. Without ``end`` nothing of it was run."""
        try:
            again = self._ask_again(one, end or ReleaseEnded(ran=False))
        except EdgefleetError as error:
            _settle(one, error)
            return
        if isinstance(again, Later):
            again.then(partial(_settle, one))
            return
        if not isinstance(again, Awaitable):
            _settle(one, again)
            return
        coming = asyncio.ensure_future(again)
        coming.add_done_callback(lambda done: _settle(one, done.exception() or done.result()))


def _rows(tensor: Tensor, rows: Sequence[slice]) -> Tensor:
    return np.concatenate([tensor[place] for place in rows])


def _count_durations(run: _Run[Any, Any, Any], now_ns: int) -> list[int]:
    """Count the durations of the answered requests. Returns their latencies in microseconds."""
    served = run.served
    output_ns = (now_ns - run.made_ns) // len(served)
    durations = served[0].active.stats.durations
    sizes = {one.items for one in served}
    for items in sizes:
        same = served if len(sizes) == 1 else [one for one in served if one.items == items]
        read_ns = sum([one.read_ns for one in same])
        durations.answer(
            items,
            read_ns - sum([one.began_ns for one in same]),
            run.made_ns * len(same) - read_ns,
            output_ns * len(same),
            requests=len(same),
        )
    return [(now_ns - one.began_ns) // 1_000 for one in served]


def _reply_of(replies: "list[R | EdgefleetError]") -> R:
    (reply,) = replies
    if isinstance(reply, EdgefleetError):
        raise reply
    return reply


def _settle(one: _Waiting[Any, Any, Any], reply: object) -> None:
    if one.reply is not None:
        one.reply.settle(reply)


async def _in_time(coming: "asyncio.Future[Inferred]", timeout_us: int, began_ns: int) -> None:
    """Wait for the inference. Raises NetworkError ``timeout`` if it takes longer, and drops it."""
    spent_us = (time.perf_counter_ns() - began_ns) // 1_000
    done, _ = await asyncio.wait((coming,), timeout=max(0, timeout_us - spent_us) / 1e6)
    if not done:
        coming.cancel()
        raise NetworkError(
            "timeout",
            f"The model did not answer within the timeout of the request, {timeout_us} us.",
            field="timeout",
            hint="Ask later, or with a longer timeout.",
        )


def _count(active: Release, error: EdgefleetError, began_ns: int) -> None:
    """Count a request that was not answered: failed in the model, or refused before it."""
    if error.code == "inference_failed":
        active.stats.failed()
    else:
        active.stats.refuse(error, active.release)
    if error.code in _FAILS:
        active.stats.durations.fail(time.perf_counter_ns() - began_ns)
