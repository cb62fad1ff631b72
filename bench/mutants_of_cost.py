"""The planted bugs of the cost of a release: CPU time, memory growth, and the sensors of boards."""

from mutant import Mutant

COST = "tests/agent/test_cost.py"
BOARD = "tests/agent/test_board.py"
CPU = "tests/serving/test_cpu_per_model.py"

MUTANTS = (
    Mutant(
        "the CPU time of a model is that of its process",
        "serving/cpu_use.py",
        "        took_ns = time.thread_time_ns() - self._began_ns\n",
        "        took_ns = time.process_time_ns()\n",
        (f"{CPU}::test_a_model_with_ten_times_the_layers_takes_more_cpu_time",),
    ),
    Mutant(
        "the threads of the runtime are not counted",
        "serving/cpu_use.py",
        "            took_ns += max(0, self._pool_ns - before_ns)\n",
        "            took_ns += 0\n",
        (f"{CPU}::test_the_threads_of_the_runtime_count_for_their_model",),
    ),
    Mutant(
        "a worker does not say its CPU time",
        "serving/worker_release.py",
        "        self.stats.cpu_ns += cpu_ns\n",
        "        self.stats.cpu_ns += 0 * cpu_ns\n",
        (f"{CPU}::test_a_model_with_ten_times_the_layers_takes_more_cpu_time",),
    ),
    Mutant(
        "the CPU time of the warm-up counts",
        "agent/quality_window.py",
        "cpu_s=window.cpu_s + grown.cpu_s if is_warm else window.cpu_s",
        "cpu_s=window.cpu_s + grown.cpu_s",
        (f"{COST}::test_the_cpu_time_of_the_warm_up_is_left_out",),
    ),
    Mutant(
        "a trial confirms whatever it costs",
        "agent/trial.py",
        "        return _cost(attempt, watch, mine) or HEALTHY\n",
        "        return HEALTHY\n",
        (COST, "cpu_doubles/600"),
    ),
    Mutant(
        "the gate gets no scores of CPU time",
        "agent/quality_window.py",
        "        cpu_log_ratio=_cpu_log_ratio(before, after),\n",
        "",
        (COST, "cpu_rises/3000"),
    ),
    Mutant(
        "cold caches fail a trial",
        "agent/cost_trial.py",
        " or after_us - before_us < limits.COST_LEAST_US:",
        ":",
        (COST,),
    ),
    Mutant(
        "one step of the allocator is a leak",
        "agent/cost_figures.py",
        "slopes[len(slopes) // 4]",
        "(sum(slopes) / len(slopes))",
        (COST,),
    ),
    Mutant(
        "the cost of the warm-up counts",
        "agent/cost_window.py",
        "        begins = now + limits.COST_WARM_UP_S\n",
        "        begins = now\n",
        (COST,),
    ),
    Mutant(
        "the memory of two processes is one series",
        "agent/cost_window.py",
        "(filling.release, filling.process) != (status.release, process)",
        "filling.release != status.release",
        (COST,),
    ),
    Mutant(
        "a comparison of costs spans the switch of another model",
        "agent/cost_window.py",
        "    return CostWindows(scores=windows.scores)\n",
        "    return windows\n",
        (COST,),
    ),
    Mutant(
        "the canaries' costs have no pairs",
        "rollout/evidence/cohorts.py",
        "            self._bet_on(self._cost_pairing.add_canary(row, costs), gate)\n",
        "            self._cost_pairing.add_canary(row, costs)\n",
        ("tests/rollout/test_costs.py", "leaks/600"),
    ),
    Mutant(
        "one pair of a device is all its pairs",
        "rollout/evidence/cohorts.py",
        "            self._bet_on(self._cost_pairing.add_control(row, costs), gate)\n",
        "            self._bet_on(self._pairing.add_control(row, costs), gate)\n",
        ("tests/rollout/test_costs.py", "leaks/600"),
    ),
    Mutant(
        "the offer does not say the limits of the plan",
        "rollout/active.py",
        "            max_cpu_increase=self.state.spec.gate.max_cpu_increase,\n",
        "",
        ("tests/rollout/test_costs.py",),
    ),
    Mutant(
        "a battery on the charger drains",
        "agent/board.py",
        '            if self._text(f"{at}/status") != "Discharging":\n                continue\n',
        "",
        (BOARD,),
    ),
    Mutant(
        "a fan that turns is a slow processor",
        "agent/board.py",
        "if state is not None and any(one in kind for one in _COOLS_CPU):",
        "if state is not None:",
        (BOARD,),
    ),
)
