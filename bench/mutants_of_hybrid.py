"""The planted bugs of hybrid inference: a fallback that hides, repeats or sends too much."""

from mutant import Mutant

_DOOR = "tests/serving/test_hybrid.py"
_CALLS = "tests/serving/test_hybrid_grpc.py"

MUTANTS = (
    Mutant(
        "a fallback that is faster hides the latency and the errors of the release",
        "serving/hybrid/door.py",
        "        if got.reply is not None:\n"
        "            return self._reply(question, Event.HEDGE, got.outcome, got.reply)\n",
        "        if got.reply is not None:\n"
        "            local.cancel()\n"
        "            return self._reply(question, Event.HEDGE, got.outcome, got.reply)\n",
        (
            f"{_DOOR}::test_a_late_answer_is_dropped_but_the_release_is_judged_by_it",
            f"{_DOOR}::test_a_late_failure_counts_although_its_client_has_an_answer",
        ),
    ),
    Mutant(
        "a fallback that answers for a failed release hides the error from the trial",
        "serving/inference.py",
        '    if error.code == "inference_failed":\n        active.stats.failed()\n',
        '    if error.code == "inference_failed":\n        pass\n',
        (f"{_DOOR}::test_an_error_of_the_release_counts_also_if_the_fallback_answers",),
    ),
    Mutant(
        "a device forwards a request that another device has forwarded",
        "serving/hybrid/question.py",
        "    if HOP.encode() in headers:\n        return False\n",
        "",
        (f"{_DOOR}::test_a_forwarded_request_is_not_forwarded_again",),
    ),
    Mutant(
        "credentials of a client are sent to the fallback",
        "serving/hybrid/question.py",
        '    "traceparent",\n)',
        '    "traceparent",\n    "authorization",\n)',
        (f"{_DOOR}::test_a_missing_model_is_forwarded_as_it_came",),
    ),
    Mutant(
        "credentials of a gRPC client are sent to the fallback",
        "serving/hybrid/grpc_question.py",
        '_TRACE: Final = ("traceparent",)',
        '_TRACE: Final = ("traceparent", "authorization")',
        (f"{_CALLS}::test_a_missing_model_is_asked_of_the_fallback_over_rest",),
    ),
    Mutant(
        "the deadline of a gRPC client does not bound the fallback",
        "serving/hybrid/grpc_question.py",
        "        allowed_us = self.request.timeout_us\n",
        "        allowed_us = 0\n",
        (f"{_CALLS}::test_the_deadline_of_the_client_bounds_the_fallback_and_is_no_fault_of_it",),
    ),
    Mutant(
        "an answer may exceed the budget of bytes",
        "serving/hybrid/budget.py",
        "return self._day.total(now) <= self._limits.bytes_per_day",
        "return True",
        ("tests/serving/test_hybrid_core.py",),
    ),
    Mutant(
        "several requests try a fallback that was open",
        "serving/hybrid/breaker.py",
        "                self._trying = True\n",
        "",
        ("tests/serving/test_hybrid_core.py",),
    ),
)
