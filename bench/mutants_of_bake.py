"""The planted bugs of the bake."""

from mutant import Mutant

MUTANTS = (
    Mutant(
        "the bake is skipped",
        "rollout/next_transition.py",
        "bake=bake.begin(active, following, judgement.at),",
        "bake=None,",
        ("bake6h/200",),
    ),
    Mutant(
        "bets begin anew after a restart",
        "rollout/engine.py",
        "        active = ActiveRollout(state, release,",
        "        if state.bake:\n"
        "            import msgspec\n"
        "            bare = msgspec.structs.replace(state.bake, bets={})\n"
        "            state = msgspec.structs.replace(state, bake=bare)\n"
        "        active = ActiveRollout(state, release,",
        (
            "tests/rollout/test_bake.py::test_a_hub_that_is_restarted_again_and_again_begins_no_bet_anew",
        ),
    ),
    Mutant(
        "a window begins anew after a restart",
        "rollout/bake.py",
        "        window = active.window = OpenWindow()\n    if",
        "        window = active.window = OpenWindow()\n"
        "        begun = replace(bake, window_since=observed.now)\n"
        "        active.state = replace(active.state, bake=begun)\n"
        "    if",
        (
            "tests/rollout/test_bake.py::test_a_hub_that_is_restarted_again_and_again_begins_no_bet_anew",
        ),
    ),
    Mutant(
        "the control has no veto",
        "rollout/evidence/windows.py",
        "return Finding.SHARED if bets.control >= share / 2 else Finding.WORSE",
        "return Finding.WORSE",
        ("outage/200",),
    ),
    Mutant(
        "the holdback begins in the bake",
        "rollout/active.py",
        "held = bake.holdback_from if bake is not None and bake.is_open else None",
        "held = None",
        ("outage/200",),
        checker="waves",
    ),
    Mutant(
        "the last wave has no holdback",
        "rollout/openings.py",
        "return holdback_size(state.spec, state.previous, len(active.scope.eligible_rows()))",
        "return 0",
        ("outage/200",),
        checker="waves",
    ),
    Mutant(
        "without a control the release is rolled back",
        "rollout/bake.py",
        "fails = (Finding.WORSE, Finding.ALONE) if alone else (Finding.WORSE,)",
        "fails = (Finding.WORSE, Finding.ALONE)",
        ("tests/rollout/test_bake.py",),
    ),
    Mutant(
        "a bake goes on beside the next rollout",
        "rollout/bake.py",
        "    if is_superseded(active, observed.others):",
        "    if False and is_superseded(active, observed.others):",
        ("tests/rollout/test_bake.py",),
    ),
    Mutant(
        "one broken device is a share of the fleet",
        "rollout/evidence/windows.py",
        "    if log_rate_evidence(strict, devices, limit) < distinct_bar:",
        "    if False:",
        ("tests/rollout/test_bake_windows.py",),
    ),
    Mutant(
        "each window begins with the whole capital",
        "rollout/evidence/windows.py",
        "(before + 1 / windows)",
        "(before + 1)",
        ("tests/rollout/test_bake_windows.py",),
    ),
    Mutant(
        "an alert ends the bake in time",
        "rollout/bake.py",
        "if bake.is_open and bake.alert is None and observed.now",
        "if bake.is_open and observed.now",
        ("tests/rollout/test_bake.py",),
    ),
    Mutant(
        "the watch after the bake rolls back",
        "rollout/bake.py",
        "    if not state.is_baking and not alone:",
        "    if False:",
        ("tests/rollout/test_bake.py",),
    ),
    Mutant(
        "a device on which serving ends counts as healthy",
        "rollout/serving_failed.py",
        "    if not fleet.serving.by_row:\n",
        "    if fleet is not None:\n",
        ("serving_ends/100",),
    ),
    Mutant(
        "the agent is silent about serving that ends",
        "agent/serving_health.py",
        "    if not causes:\n",
        "    if causes or not causes:\n",
        ("serving_ends/100",),
    ),
)
