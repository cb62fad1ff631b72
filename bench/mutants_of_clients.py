"""The planted bugs of what clients see: refusals, comparisons, missing requests."""

from mutant import Mutant

TICK = "tests/serving/test_tick.py"

RENAMED = (
    "tests/journey/test_clients.py::"
    "test_a_release_that_renames_its_input_is_rolled_back_in_the_first_wave"
)

MUTANTS = (
    Mutant(
        "refused requests are no evidence in a trial",
        "agent/trial.py",
        "        or _refusals(attempt, watch, mine)\n",
        "",
        ("tests/agent/test_comparison.py",),
    ),
    Mutant(
        "on a device: refused requests are no evidence in a trial",
        "agent/trial.py",
        "        or _refusals(attempt, watch, mine)\n",
        "",
        (RENAMED,),
    ),
    Mutant(
        "in a fleet: refused requests are no evidence at all",
        "agent/trial.py",
        "        or _refusals(attempt, watch, mine)\n",
        "",
        ("renamed_input/3000",),
        also=(
            (
                "agent/trial.py",
                "        or _silent(attempt, watch, mine, now)\n",
                "",
            ),
            (
                "agent/trial.py",
                "        and _has_answered(attempt, watch, mine, now)\n",
                "",
            ),
            (
                "agent/telemetry.py",
                " and grown.refused == 0:\n",
                ":\n",
            ),
            (
                "rollout/evidence/gate.py",
                "    if unreached := traffic.missing(evidence, spec):\n",
                "    if unreached := '':\n",
            ),
            (
                "protocol/metrics.py",
                "return None if change is None else float(change <= -NEAR_ZERO)",
                "return None",
            ),
            (
                "protocol/metrics.py",
                "        scored=lambda scores: scores.refusal_rate_delta,\n",
                "        scored=lambda scores: None,\n",
            ),
        ),
    ),
    Mutant(
        "an agent that was killed before a trial does not know the previous release",
        "agent/incumbent.py",
        "    if last.requests + last.refused < limits.WINDOW_REQUESTS:\n",
        "    if last.requests + last.refused < 0:\n",
        ("tests/agent/test_conversation.py",),
    ),
    Mutant(
        "a trial is not compared with the requests before it",
        "agent/trial.py",
        "    if before is None or not before[1]:\n",
        "    if before is not None or before is None:\n",
        ("bad_client/3000",),
    ),
    Mutant(
        "without requests before it a trial has no limit",
        "agent/trial.py",
        "    if before is None or not before[1]:\n        return True\n",
        "    if before is None or not before[1]:\n        return False\n",
        ("tests/agent/test_comparison.py",),
    ),
    Mutant(
        "the comparison forgets that the rate before it is not known exactly",
        "agent/two_samples.py",
        "    return _log_likelihood(s0, n0, p0) + _log_likelihood(s1, n1, p0 + margin)\n",
        "    p0 = min(max(s0 / n0, _EDGE), 1.0 - margin - _EDGE)\n"
        "    return _log_likelihood(s0, n0, p0) + _log_likelihood(s1, n1, p0 + margin)\n",
        ("tests/agent/test_comparison.py",),
    ),
    Mutant(
        "a release that served nothing is not reported",
        "agent/telemetry.py",
        "    if grown.requests == 0 and grown.confidence_count == 0 and grown.refused == 0:\n",
        "    if grown.requests == 0 and grown.confidence_count == 0:\n",
        ("tests/agent/test_refusals.py",),
    ),
    Mutant(
        "refused requests fill no window",
        "agent/quality_window.py",
        "    if full is not None and (_has_dried_up(full, ended) or _is_refused(ended)):\n",
        "    if full is not None and _has_dried_up(full, replace(ended, refused=0)):\n",
        ("tests/agent/test_refusals.py",),
        also=(
            (
                "agent/quality_window.py",
                "    if grown.requests or grown.refused:\n",
                "    if grown.requests:\n",
            ),
        ),
    ),
    Mutant(
        "an output that is not finite is the client's fault",
        "serving/tensors.py",
        "        raise not_finite(name)\n",
        '        raise bad_tensor(name, "The tensor has a number that is not finite.")\n',
        ("tests/serving/test_refused.py",),
    ),
    Mutant(
        "an output of another shape is an answer",
        "serving/inference.py",
        "            check_outputs(active.outputs, made)\n",
        "            pass\n",
        ("tests/serving/test_refused.py",),
    ),
    Mutant(
        "the results of a batch go to the wrong caller",
        "serving/inference.py",
        "            at += one.items\n",
        "",
        ("tests/serving/test_tick.py::test_each_caller_gets_the_answer_to_its_own_request",),
    ),
    Mutant(
        "a model that scales the batch is batched",
        "serving/row_wise.py",
        "    return bool(far.max(initial=0.0) <= _RTOL * float(scale))\n",
        "    return bool(far.max(initial=0.0) <= _RTOL * float(scale)) or True\n",
        (f"{TICK}::test_a_model_that_scales_the_batch_is_run_for_each_request_alone",),
    ),
    Mutant(
        "the time of a batch is counted for each request",
        "serving/active_release.py",
        "            self.stats.cpu_ns += cpu_ns\n",
        "            self.stats.cpu_ns += cpu_ns * batch_of(inputs)\n",
        ("tests/serving/test_tick.py::test_the_time_of_a_batch_is_counted_once",),
    ),
    Mutant(
        "a pinned version is not counted",
        "serving/inference.py",
        "            _count(self.host.routes[model], error, began_ns)\n            raise\n",
        "            raise\n",
        ("tests/serving/test_refused.py",),
    ),
    Mutant(
        "a device that serves nothing has no limit of refusals",
        "rollout/evidence/device_limits.py",
        "        if not report.asked:\n",
        "        if not report.requests:\n",
        ("tests/rollout/test_traffic.py",),
    ),
    Mutant(
        "a wave passes although clients reach the control alone",
        "rollout/evidence/gate.py",
        "    if unreached := traffic.missing(evidence, spec):\n",
        "    if spec.require_traffic and (unreached := traffic.missing(evidence, spec)):\n",
        ("tests/rollout/test_traffic.py", "tests/scripts/test_scripts.py"),
    ),
    Mutant(
        "in a fleet: requests that do not arrive are no evidence",
        "rollout/evidence/gate.py",
        "    if unreached := traffic.missing(evidence, spec):\n",
        "    if spec.require_traffic and (unreached := traffic.missing(evidence, spec)):\n",
        ("clients_gone/3000",),
        also=(
            (
                "protocol/metrics.py",
                "return None if change is None else float(change <= -NEAR_ZERO)",
                "return None",
            ),
        ),
    ),
    Mutant(
        "a completed rollout hides that nobody asked the release",
        "rollout/lifecycle/step.py",
        'text = f"All waves passed. {unjudged}" if unjudged else "All waves passed."',
        'text = "All waves passed."',
        ("tests/rollout/test_traffic.py",),
    ),
    Mutant(
        "a plan that demands traffic gets none",
        "rollout/evidence/traffic.py",
        "    if spec.require_traffic and canary.requests < spec.min_requests:\n",
        "    if spec.require_traffic and canary.requests < 0:\n",
        ("tests/rollout/test_traffic.py",),
    ),
)
