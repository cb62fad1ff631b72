"""The planted bugs of absolute limits, and of the limit of failures."""

from mutant import Mutant

LIMITS = "rollout/evidence/device_limits.py"

MUTANTS = (
    Mutant(
        "pairs of windows are ignored",
        "rollout/evidence/gate.py",
        "        return sign_evidence(rounds) >= alphas.limits_log_bar(spec)\n",
        "        return True\n",
        ("tests/rollout/test_device_limits.py",),
    ),
    Mutant(
        "the control has no veto on a limit",
        "rollout/evidence/gate.py",
        "    if is_shared(counts, metric):\n",
        "    if False:\n",
        ("tests/rollout/test_device_limits.py",),
    ),
    Mutant(
        "a device is flagged by one report",
        LIMITS,
        "                requests[row] = most = min(requests[row] + counts[0], _MOST)\n"
        "                bad[row] = failed = min(bad[row] + counts[1], most)\n",
        "                requests[row] = most = min(counts[0], _MOST)\n"
        "                bad[row] = failed = min(counts[1], most)\n",
        ("tests/rollout/test_device_limits.py",),
    ),
    Mutant(
        "two of twenty is ten percent",
        LIMITS,
        "return bad > share * requests and _chance(bad, requests, share) <= FLAG_P",
        "return bad > share * requests",
        ("tests/rollout/test_device_limits.py",),
    ),
    Mutant(
        "devices that got better are not counted",
        LIMITS,
        "            better=known.better + (change < 0),\n",
        "            better=known.better,\n",
        ("tests/rollout/test_device_limits.py",),
    ),
    Mutant(
        "only the window of the switch is compared",
        LIMITS,
        "        if is_switch == bool(count) or count == _WINDOWS:\n",
        "        if not is_switch or count:\n",
        ("tests/rollout/test_device_limits.py", "slow_burn/3000"),
    ),
    Mutant(
        "pairs begin anew after a restart",
        "rollout/evidence/cohorts.py",
        "        self._switched = SwitchPairs(pairs)\n",
        "        self._switched = SwitchPairs()\n",
        ("tests/rollout/test_baseline.py",),
    ),
    Mutant(
        "a history has no cap",
        "rollout/evidence/history.py",
        "    return min(max(limit, upper_bound(bad, size, alpha)), MOST * limit, 1.0)\n",
        "    return min(max(limit, upper_bound(bad, size, alpha)), 1.0)\n",
        ("tests/rollout/test_history.py",),
    ),
    Mutant(
        "a release that was taken back is a part of the history",
        "rollout/earlier.py",
        "        and one.state.status is Status.COMPLETED\n",
        "        and one.state.started_at is not None\n",
        ("tests/rollout/test_history.py",),
    ),
    Mutant(
        "a small history lifts the limit",
        "rollout/evidence/history.py",
        "    if size < HISTORY_DEVICES or bad < LEAST * limit * size:\n",
        "    if not size:\n",
        ("tests/rollout/test_history.py",),
    ),
    Mutant(
        "the plan does not warn",
        "rollout/why/baseline.py",
        "    if state.baseline is not None and state.baseline.release == state.previous:\n",
        "    if False and state.baseline is not None:\n",
        ("tests/rollout/test_baseline.py",),
    ),
)
