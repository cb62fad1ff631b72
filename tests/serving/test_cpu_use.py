"""The CPU counters of the serving process, its workers and the machine."""

import os
import subprocess
import sys

from edgefleet.serving.cpu_use import cpu_use, process_cpu_s

BURN = "import time\nwhile time.process_time() < 0.3: pass\nprint('burnt', flush=True)\ninput()"


def test_the_cpu_of_a_worker_counts_while_it_runs_and_after_it_has_ended() -> None:
    before = cpu_use([])
    assert before is not None
    with subprocess.Popen(
        [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "burnt\n"
        assert process_cpu_s(worker.pid) >= 0.29  # two counters of different precision
        with_it, without = cpu_use([worker.pid]), cpu_use([])
        assert with_it is not None
        assert without is not None
        assert with_it.serving_s - without.serving_s >= 0.25
        worker.communicate("\n")
    after = cpu_use([])
    assert after is not None
    assert after.serving_s - before.serving_s >= 0.25
    assert after.machine_s >= before.machine_s > 0
    assert after.cores == len(os.sched_getaffinity(0))


def test_a_process_that_has_ended_used_no_cpu() -> None:
    worker = subprocess.Popen([sys.executable, "-c", "pass"])
    worker.wait()
    assert process_cpu_s(worker.pid) == 0.0
