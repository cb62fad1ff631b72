"""Whether a release in trial is what the other models on the device suffer from.

Two readings of the CPU counters give the cores that were used between them: by the programs that do
not serve, by all that serve, and by the trial. Another model that gets slow or fails during a trial
proves nothing about the trial: other programs may have begun to work. The trial is the cause if its
growth is larger than that of the other programs, and if it took at least half of the cores that
were free without it. Both compare the device with itself, just before the trial.
"""

from edgefleet.agent import limits
from edgefleet.agent.state import Load, LoadMark, Watch
from edgefleet.protocol.serving import ServingStatus, model_status


def follow(marks: tuple[LoadMark, ...], status: ServingStatus, now: float) -> tuple[LoadMark, ...]:
    """The last two readings that are LOAD_SPAN_S apart, with the counters of ``status``.

    Readings of an earlier serving process do not count.
    """
    reading = read(status, now)
    if reading is None:
        return ()
    mine = tuple(mark for mark in marks if mark.pid == status.pid and mark.at <= now)
    if mine and now - mine[-1].at < limits.LOAD_SPAN_S:
        return mine
    return (*mine, reading)[-2:]


def read(status: ServingStatus, now: float) -> LoadMark | None:
    """The counters of ``status``. None if the system does not say them."""
    return None if status.cpu is None else LoadMark(at=now, pid=status.pid, cpu=status.cpu)


def before(marks: tuple[LoadMark, ...], status: ServingStatus, now: float) -> Load | None:
    """The cores used before a trial that is active now. None if they are not known.

    Of two readings the last one ends the time, because the load of a release takes CPU, too.
    """
    if not marks:
        return None
    return between(marks[0], marks[1] if len(marks) > 1 else read(status, now))


def between(start: LoadMark, end: LoadMark | None) -> Load | None:
    """The cores used between two readings. None if they are of two processes, or too close."""
    if end is None or end.pid != start.pid or end.at - start.at < limits.LOAD_LEAST_S:
        return None
    lasted_s = end.at - start.at
    machine = max(0.0, end.cpu.machine_s - start.cpu.machine_s) / lasted_s
    serving = min(machine, max(0.0, end.cpu.serving_s - start.cpu.serving_s) / lasted_s)
    return Load(cores=end.cpu.cores, other=machine - serving, serving=serving)


def blames(watch: Watch, status: ServingStatus, now: float) -> bool:
    """True if the trial of ``watch`` is the cause of what happened since its activation."""
    start, mine = watch.load_start, model_status(status, watch.start.model)
    if start is None or mine is None:
        return False
    during = between(start, read(status, now))
    if during is None:
        return False
    return is_cause(watch.load, during, (mine.worker_cpu_s - watch.worker_cpu_s) / (now - start.at))


def is_cause(earlier: Load | None, during: Load, trial: float) -> bool:
    """True if the trial is the cause. ``trial`` is the number of cores that it used.

    False without the load before the trial: nothing is known then.
    """
    if earlier is None:
        return False
    grown = min(trial, during.serving - earlier.serving)
    if grown < limits.LOAD_LEAST_CORES or grown <= during.other - earlier.other:
        return False
    free_without = during.cores - during.other - during.serving + grown
    return grown >= limits.LOAD_SHARE * free_without
