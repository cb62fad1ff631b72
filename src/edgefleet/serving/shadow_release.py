"""A candidate that runs as a shadow: it answers chosen requests again, and no caller.

The active release has answered before. The inputs are copied while the reply is encoded, the
candidate gets them a moment later in a process of its own at the lowest priority, and one request
at a time. So a caller waits for the copy at most, and a device without an idle core skips requests.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Final

from edgefleet.base.cgroup import memory_room
from edgefleet.base.errors import EdgefleetError
from edgefleet.protocol.comparisons import PluginComparison
from edgefleet.protocol.device import Reason
from edgefleet.protocol.serving import ServedShadow
from edgefleet.protocol.serving_health import OUT_OF_MEMORY
from edgefleet.protocol.shadow import ShadowStatus
from edgefleet.serving.active_release import Inferred, Release, ReleaseEnded
from edgefleet.serving.body_memory import BodyMemory
from edgefleet.serving.cpu_use import process_cpu_s
from edgefleet.serving.limits import (
    SHADOW_COMPARE_BYTES,
    SHADOW_DELAY_S,
    SHADOW_HUNG_SHARE,
    SHADOW_RUN_S,
)
from edgefleet.serving.memory_budget import decide
from edgefleet.serving.resident import need_of
from edgefleet.serving.run_times import RunTimes, bytes_of
from edgefleet.serving.runtime import Tensor
from edgefleet.serving.shadow import (
    Differs,
    Sampler,
    ShadowCounts,
    check_interface,
    reason_to_skip,
)
from edgefleet.serving.worker_process import set_policy
from edgefleet.serving.worker_release import WorkerRelease

_KILLED: Final = (OUT_OF_MEMORY, "SIGKILL")  # by the system: no fault of the candidate


class _NeverFast(RunTimes):
    """The event loop never waits for a shadow."""

    def is_fast(self, size: int) -> bool:  # noqa: ARG002 - the signature of RunTimes
        return False


class ShadowRelease:
    """One candidate, from its load on. ``ended`` is why it answers no more, see ShadowStatus."""

    def __init__(self, model: str, wanted: ServedShadow, bodies: BodyMemory) -> None:
        self.wanted = wanted
        self.counts = ShadowCounts(wanted)
        self._model = model
        self._bodies = bodies
        self._sampler = Sampler(wanted.share)
        self._worker: WorkerRelease | None = None
        self._ended = self._cause = ""
        self._fault = self._busy = False
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, active: Release) -> None:
        """Load the candidate beside ``active``, in the background."""
        self.counts.compare_with(active.wanted.quality)
        self._do(self._load(active))

    @property
    def workers(self) -> tuple[int, ...]:
        """The pid of its process. Empty without one."""
        pid = None if self._worker is None else self._worker.worker
        return () if pid is None else (pid,)

    def offer(
        self,
        active: Release,
        inputs: Mapping[str, Tensor],
        made: Mapping[str, Tensor],
        requests: int,
        items: int,
    ) -> None:
        """Choose, or not, one run of ``active`` that answered ``requests``. Returns at once."""
        counts, worker = self.counts, self._worker
        if worker is None or self._ended:
            return
        counts.asked += requests
        if not self._sampler.takes():
            return
        max_batch = self.wanted.release.variant.max_batch
        why = "busy" if self._busy or active.stats.in_flight else ""
        why = why or reason_to_skip(inputs, made, counts, items, max_batch)
        if why:
            counts.skip(why)
            return
        try:  # the next request overwrites the memory of this one
            copied = {name: tensor.copy() for name, tensor in inputs.items()}
            wanted = {name: made[name].copy() for name in counts.outputs}
        except MemoryError:
            counts.skip("no memory")
            return
        self._busy = True
        asyncio.get_running_loop().call_later(
            SHADOW_DELAY_S, self._start, active, worker, copied, wanted
        )

    def status(self) -> ShadowStatus:
        """The counters, and the end if there is one."""
        worker = self._worker
        if worker is not None and worker.ended and not self._ended:
            cause = worker.find_end()
            self._end(worker.ended, Reason.CRASH, fault=cause not in _KILLED)
        return self.counts.status(
            worker=None if worker is None else worker.worker,
            ended=self._ended,
            cause=self._cause,
            fault=self._fault,
        )

    async def drop(self) -> None:
        """Free the candidate, whatever it does."""
        self._end("It is not wanted any more.", "", fault=False)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._free()

    async def _load(self, active: Release) -> None:
        release = self.wanted.release
        names = [spec.name for spec in active.outputs]
        try:
            check_interface(release.variant, active.inputs, names, self.counts.outputs)
        except Differs as error:
            self._end(str(error), "interface", fault=False)
            return
        decision = decide(need_of(release, 0, in_worker=True), memory_room())
        if decision.how != "beside":
            text = "There is no memory for the candidate beside the active release."
            self._end(f"{text} {decision.text}", "memory_short", fault=False)
            return
        try:
            worker = await WorkerRelease.start(
                self._model, release, self._bodies, lambda _worker: None
            )
        except EdgefleetError as error:
            self._end(f"The candidate was not loaded: {error.message}", error.code, fault=False)
            return
        worker.times = _NeverFast()
        lower_priority(worker.worker)
        self._worker = worker

    def _start(
        self,
        active: Release,
        worker: WorkerRelease,
        inputs: Mapping[str, Tensor],
        wanted: Mapping[str, Tensor],
    ) -> None:
        """Run a chosen request, if the device has nothing else to do by now."""
        if self._ended or worker.ended:
            return
        if active.stats.in_flight:
            self._busy = False
            self.counts.skip("busy")
            return
        try:
            coming = worker.infer(inputs, self.counts.outputs)
        except (EdgefleetError, ReleaseEnded):
            self._busy = False
            return
        self._do(self._measure(worker, coming, wanted))

    async def _measure(
        self,
        worker: WorkerRelease,
        coming: "Inferred | asyncio.Future[Inferred]",
        wanted: Mapping[str, Tensor],
    ) -> None:
        pid, cpu_ns, began = worker.worker or 0, worker.stats.cpu_ns, time.perf_counter()
        spent_s = process_cpu_s(pid)
        try:
            if not isinstance(coming, tuple):
                coming = await asyncio.wait_for(coming, SHADOW_RUN_S)
        except TimeoutError:
            await self._give_up(process_cpu_s(pid) - spent_s)
        except EdgefleetError as error:
            self.counts.failed(error)
        except ReleaseEnded:
            pass  # ``status`` says why
        else:
            got = dict(zip(self.counts.outputs, coming[0], strict=True))
            took_us = int((time.perf_counter() - began) * 1e6)
            await self._compare(got, wanted, worker.stats.cpu_ns - cpu_ns, took_us)
        finally:
            self._busy = False

    async def _compare(
        self, got: Mapping[str, Tensor], wanted: Mapping[str, Tensor], cpu_ns: int, took_us: int
    ) -> None:
        """Count the answers. Large ones, and those for a plug-in, not on the event loop."""

        def count() -> None:
            self.counts.answered(got, wanted, cpu_ns=cpu_ns, run_us=took_us)

        is_large = bytes_of(got) > SHADOW_COMPARE_BYTES
        if is_large or isinstance(self.counts.comparison, PluginComparison):
            await asyncio.to_thread(count)
        else:
            count()

    async def _give_up(self, cpu_s: float) -> None:
        """A run does not end: the fault of the candidate, or of a device without an idle core."""
        if cpu_s >= SHADOW_HUNG_SHARE * SHADOW_RUN_S:
            text = f"A run did not end within {SHADOW_RUN_S:g} s and {cpu_s:.1f} s of CPU."
            self._end(text, Reason.HUNG, fault=True)
        else:
            text = f"A run did not end within {SHADOW_RUN_S:g} s, as the device has no idle core."
            self._end(text, "overloaded", fault=False)
        await self._free()

    async def _free(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.retire(0.0)

    def _end(self, text: str, cause: str, *, fault: bool) -> None:
        if not self._ended:
            self._ended, self._cause, self._fault = text, str(cause), fault

    def _do(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def lower_priority(pid: int | None) -> None:
    """Have all threads of the process run only on a core without other work."""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            try:
                set_policy(int(thread.name), os.SCHED_IDLE)
            except OSError:  # the system forbids it
                os.setpriority(os.PRIO_PROCESS, int(thread.name), 19)
