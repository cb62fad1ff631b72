"""The planted bugs of the shadow phase: of a candidate that no caller may see, and its evidence."""

from mutant import Mutant

CORE = "tests/agent/test_shadow_phase.py"
SERVING = "tests/serving/test_shadow.py"
SIM = "shadow_differs/200"

MUTANTS = (
    Mutant(
        "the answers of a shadow reach the callers",
        "agent/activation.py",
        "        trial=trial_release,\n",
        "        trial=trial_release or (one.release if (one := _shadow(state)) else None),\n",
        (SIM, CORE),
    ),
    Mutant(
        "the callers' requests are routed to a shadow",
        "serving/shadow_release.py",
        "        self._worker = worker\n",
        "        self._worker = worker\n        active.infer = worker.infer\n",
        (f"{SERVING}::test_a_bad_candidate_is_found_and_every_caller_gets_the_active_release",),
    ),
    Mutant(
        "a shadow whose answers differ goes on to its trial",
        "agent/shadow.py",
        "    if error_rate.is_too_high(mine.disagreement, mine.compared, plan.max_disagreement):\n",
        "    if False:\n",
        (SIM,),
        also=(
            (
                "agent/shadow.py",
                "    if is_full and mine.disagreement > plan.max_disagreement * mine.compared:\n",
                "    if False:\n",
            ),
        ),
    ),
    Mutant(
        "a share just above the limit passes",
        "agent/shadow.py",
        "    if is_full and mine.disagreement > plan.max_disagreement * mine.compared:\n",
        "    if False:\n",
        (CORE,),
    ),
    Mutant(
        "the shadow phase of a device without requests never ends",
        "agent/shadow.py",
        "    if now - watch.since < plan.for_s:\n",
        "    if True:\n",
        (CORE,),
    ),
    Mutant(
        "a shadow that takes the power down is tried for ever",
        "agent/shadow_phase.py",
        "    context.change_attempt(shadow_breaks=breaks)\n",
        "",
        (CORE,),
    ),
    Mutant(
        "the shadow of a cancelled attempt stays in memory",
        "agent/before_trial.py",
        "    withdraw(context)\n    free_shadow(context)\n    context.move(Signal.CANCELLED)\n",
        "    withdraw(context)\n    context.move(Signal.CANCELLED)\n",
        (CORE,),
    ),
    Mutant(
        "the previous release is freed at its confirmation",
        "serving/previous.py",
        "            if is_previous and not release.ended and _has_room(release):\n",
        "            if False:\n",
        ("tests/serving/test_previous.py",),
    ),
    Mutant(
        "the previous release is kept without room",
        "serving/previous.py",
        "            if is_previous and not release.ended and _has_room(release):\n",
        "            if is_previous and not release.ended:\n",
        ("tests/serving/test_previous.py",),
    ),
    Mutant(
        "scores that are no numbers are no error of a shadow",
        "serving/shadow.py",
        "            return before is None\n",
        "            return True\n",
        (f"{SERVING}::test_an_answer_that_is_none_is_an_error_of_the_candidate",),
    ),
)
