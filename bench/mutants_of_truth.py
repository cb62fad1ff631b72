"""The planted bugs of second chances, of blame, and of what the text and the figures say."""

from mutant import Mutant

MUTANTS = (
    Mutant(
        "a second chance forgives what happens later",
        "rollout/active.py",
        "if its.spec.again and (mine.created_at, mine.id) < (its.created_at, its.id):",
        "if its.spec.again or mine.spec.again:",
        ("tests/rollout/test_second_chance.py",),
    ),
    Mutant(
        "a plan without a reason takes a release that failed",
        "rollout/plan.py",
        "    if failed is not None:\n",
        "    if False and failed is not None:\n",
        ("tests/rollout/test_second_chance.py",),
    ),
    Mutant(
        "a second chance leaves out the devices that failed",
        "rollout/active.py",
        "            return frozenset()\n        return AT_FAULT",
        "            return AT_FAULT\n        return AT_FAULT",
        ("tests/rollout/test_second_chance.py",),
    ),
    Mutant(
        "a revert by a person bans the devices",
        "rollout/active.py",
        "return AT_FAULT if mine.is_taken_back and not mine.has_failed else EXCLUDED",
        "return EXCLUDED",
        ("tests/rollout/test_second_chance.py",),
    ),
    Mutant(
        "a revert by a person bans the release",
        "rollout/lifecycle/state.py",
        "return self.is_taken_back and self.reason != BY_HAND",
        "return self.is_taken_back",
        ("tests/rollout/test_second_chance.py",),
    ),
    Mutant(
        "a release that is bad everywhere quarantines its devices",
        "rollout/engine.py",
        "                if not active.state.is_taken_back\n",
        "",
        ("tests/rollout/test_second_chance.py",),
    ),
    Mutant(
        "one release that fails twice quarantines a device",
        "rollout/constraints/quarantine.py",
        "return len({self._kept[rollout] for rollout in rollouts if rollout in self._kept})",
        "return len([rollout for rollout in rollouts if rollout in self._kept])",
        ("tests/rollout/test_second_chance.py",),
    ),
)
