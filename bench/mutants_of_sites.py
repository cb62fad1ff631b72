"""The planted bugs of the comparison by site."""

from mutant import Mutant

_TESTS = "tests/rollout/test_sites.py::"
_DARK = f"{_TESTS}test_a_site_that_goes_dark_does_not_count_against_the_release"

MUTANTS = (
    Mutant(
        "a group of dark devices is closed too early",
        "rollout/evidence/site_watch.py",
        "            or (now - at >= quiet_s and number not in restless)\n",
        "            or True\n",
        (_DARK,),
    ),
    Mutant(
        "the bets on dark devices begin anew after a restart",
        "rollout/engine.py",
        "        active = ActiveRollout(state, release,",
        "        import msgspec\n"
        "        bare = type(state.site_bets)()\n"
        "        state = msgspec.structs.replace(state, site_bets=bare)\n"
        "        active = ActiveRollout(state, release,",
        (f"{_TESTS}test_a_restart_begins_no_bet_anew_and_counts_no_dark_device_twice",),
    ),
    Mutant(
        "a dark device counts again after each restart",
        "rollout/evidence/site_watch.py",
        "            canary &= began | ~fleet.silent_since(rows, fleet.listening_since)\n",
        "            canary &= began | True\n",
        (f"{_TESTS}test_a_restart_begins_no_bet_anew_and_counts_no_dark_device_twice",),
    ),
    Mutant(
        "dark devices of the control do not count",
        "rollout/evidence/site_watch.py",
        "dark_controls=int(np.count_nonzero(control & observed.dark)),",
        "dark_controls=0,",
        ("site_dark/1000", _DARK),
    ),
    Mutant(
        "silence fails a release without its control",
        "rollout/evidence/gate.py",
        "    if sites.has_control and math.log(max(sites.e_value, 1e-300)) < bar:\n",
        "    if False:\n",
        (f"{_TESTS}test_silence_beyond_its_limit_fails_nothing_while_the_control_is_as_silent",),
    ),
    Mutant(
        "a silent device counts before its group is closed",
        "rollout/census.py",
        "        silent[silent] = ~active.sites.are_open(trial[silent], fleet)\n",
        "",
        (f"{_TESTS}test_a_silent_device_counts_only_when_its_group_is_closed",),
    ),
    Mutant(
        "an outage excuses no device",
        "rollout/lifecycle/step.py",
        "outages = (*state.outages, *event.outages)[-OUTAGES:]",
        "outages = state.outages",
        (_DARK,),
    ),
    Mutant(
        "a failure in an outage is the fault of the device",
        "rollout/engine.py",
        "one.state.id: one.set_aside.parts",
        "one.state.id: one.taken",
        (f"{_TESTS}test_a_failure_in_an_outage_is_nobodys_fault",),
    ),
    Mutant(
        "a verdict that rests on one site takes the release back everywhere",
        "rollout/why/status.py",
        "return name_site(active, self._fleet, judge(evidence), silent, judge)",
        "return judge(evidence)",
        (f"{_TESTS}test_a_release_that_bricks_one_site_goes_back_there",),
    ),
    Mutant(
        "the release goes on after a verdict that rests on one site",
        "rollout/withdrawal.py",
        "        return events.PartFailed(judgement=judgement, part=_failed_site(judgement))\n",
        "        return events.ClassFailed(judgement=judgement, part=_failed_site(judgement))\n",
        (f"{_TESTS}test_a_release_that_bricks_one_site_goes_back_there",),
    ),
    Mutant(
        "devices of another wave selector are control",
        "rollout/strata_of_plan.py",
        'inside = "".join(str(int(one.matches(labels))) for one in chosen)',
        'inside = ""',
        (f"{_TESTS}test_devices_without_a_chance_to_begin_are_no_control",),
    ),
    Mutant(
        "one device shows that an artifact is damaged",
        "rollout/wrong_bytes.py",
        "        if len(rows) >= WRONG_BYTES_DEVICES and _are_apart(active, fleet, rows)\n",
        "        if _are_apart(active, fleet, rows)\n",
        ("tests/rollout/test_wrong_bytes.py",),
    ),
    Mutant(
        "the proxy of one site shows that an artifact is damaged",
        "rollout/wrong_bytes.py",
        "        if len(rows) >= WRONG_BYTES_DEVICES and _are_apart(active, fleet, rows)\n",
        "        if len(rows) >= WRONG_BYTES_DEVICES\n",
        ("tests/rollout/test_wrong_bytes.py",),
    ),
    Mutant(
        "a damaged artifact is tried for ever",
        "rollout/census.py",
        "with_damaged(with_serving_failed(counted, fleet, failing), fleet, damaged)",
        "with_serving_failed(counted, fleet, failing)",
        ("tests/rollout/test_wrong_bytes.py",),
    ),
)
