"""Sites that go dark in a rollout: with the engine, in virtual time."""

from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.rollout import (
    ExposureSpec,
    GateSpec,
    RolloutSpec,
    Status,
    Verb,
    WaveSpec,
)
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.evidence import site_watch
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.evidence.strata import log_evidence
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.strata_of_plan import watched
from edgefleet.testing import MemoryHub, fake_manifest

SITES = 5
DEVICES = 200
STEP_S = 5.0
CHECK_IN_S = 60.0
TRIALS = 20  # in trial when the site goes dark: 4 of each site


class Scene:
    """Devices under the engine. Those in trial check in every ``trial_s``, others ``control_s``.

    The devices in trial stay there until a test reports an outcome.
    """

    def __init__(
        self,
        *,
        trial_s: float = CHECK_IN_S,
        control_s: float = CHECK_IN_S,
        labelled: bool = True,
        trials: int = TRIALS,
        devices: int = DEVICES,
        gate: GateSpec | None = None,
    ) -> None:
        self.hub = hub = MemoryHub(now=0.0)
        for number in range(devices):
            labels = {"site": f"s{number % SITES}"} if labelled else {}
            hub.add_device(f"d{number}", labels=labels)
        for release in ("2", "3"):
            hub.add_release(fake_manifest("m", release, ("generic_x86",), now=0.0))
        self.rows = np.arange(devices)
        self.off = np.zeros(devices, np.bool_)
        self.trial_s, self.control_s = trial_s, control_s
        self.active = None
        self.pass_s(2 * CHECK_IN_S)
        spec = RolloutSpec(
            model="m",
            release="2",
            waves=(WaveSpec(percent=100),),
            exposure=ExposureSpec(first=trials, ceiling=1.0),
            gate=gate or GateSpec(),
            bake_s=0,
        )
        self.rollout = hub.start(spec, salt=1)
        self.find()
        self.begin(trials)

    def find(self) -> None:
        self.active = self.hub.engine.rollout(self.rollout)

    def begin(self, count: int) -> None:
        waiting = self.rows[self.standing(DeviceStanding.NONE)]
        order = np.lexsort((waiting, waiting // SITES % 7))
        for row in waiting[order][:count].tolist():
            assert self.hub.record(row, self.outcome(OutcomeKind.TRIAL_STARTED))

    def outcome(self, kind: OutcomeKind) -> Outcome:
        return Outcome(id=kind.value, rollout=self.rollout, release="2", kind=kind, at=0.0)

    def standing(self, standing: DeviceStanding) -> np.ndarray:
        return self.active.ledger.standings(self.rows) == standing

    @property
    def trial(self) -> Rows:
        return self.rows[self.standing(DeviceStanding.TRIAL)]

    def site(self, number: int) -> Rows:
        return self.rows[self.rows % SITES == number]

    def pass_s(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = self.hub.now + seconds
        while self.hub.now < end and not until():
            self.hub.now += STEP_S
            every_s = np.full(len(self.rows), self.control_s)
            if self.active is not None:
                every_s[self.standing(DeviceStanding.TRIAL)] = self.trial_s
            heard = (self.hub.now + self.rows * STEP_S) % every_s < STEP_S
            self.hub.engine.fleet.digest_heartbeats(self.rows[heard & ~self.off], self.hub.now)
            self.hub.evaluate()

    def restart(self, *, reverse: bool = False) -> None:
        """Restart the hub. As in the hub's store, the last reports of devices are kept."""
        fleet = self.hub.engine.fleet
        reports = [fleet.report(row) for row in self.rows.tolist()]
        self.hub.restart(reverse=reverse)
        for row, report in enumerate(reports):
            self.hub.engine.fleet.restore(row, report)
        self.find()

    def confirm(self) -> None:
        for row in self.trial[~self.off[self.trial]].tolist():
            self.hub.record(row, self.outcome(OutcomeKind.CONFIRMED))

    @property
    def status(self) -> Status:
        return self.active.state.status

    @property
    def evidence(self):
        return self.hub.view(self.rollout).evidence

    @property
    def log_e(self) -> float:
        return log_evidence(self.active.state.site_bets.log_wealth)


@pytest.mark.parametrize(("trial_s", "control_s"), [(60.0, 60.0), (10.0, 60.0), (60.0, 10.0)])
def test_a_site_that_goes_dark_does_not_count_against_the_release(
    trial_s: float, control_s: float
) -> None:
    """Devices in trial may be noticed before the others, or after them."""
    scene = Scene(trial_s=trial_s, control_s=control_s)
    scene.pass_s(90)
    scene.off[scene.site(1)] = True
    scene.pass_s(900)
    assert scene.status is Status.RUNNING
    assert (scene.evidence.failed, scene.evidence.set_aside) == (0, 4)
    assert scene.log_e <= 1e-9
    (outage,) = scene.active.state.outages
    assert (outage.value, outage.dark, outage.in_trial) == ("s1", 4, 4)
    assert (outage.dark_control, outage.control) == (36, 36)
    assert WaitCode.OUTAGE in {wait.code for wait in scene.hub.why(scene.rollout).waits}


def test_a_group_that_is_closed_too_early_has_canaries_without_their_controls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The canaries check in less often, so they are noticed first."""

    def dark_site() -> Scene:
        scene = Scene(trial_s=60.0, control_s=10.0)
        scene.pass_s(90)
        scene.off[scene.site(1)] = True
        scene.pass_s(900)
        return scene

    assert dark_site().log_e <= 1e-9
    monkeypatch.setattr(site_watch, "QUIET_CHECK_INS", 0.0)
    scene = dark_site()
    assert scene.log_e > 3
    assert scene.evidence.failed


def test_a_release_that_bricks_devices_is_found_by_the_comparison() -> None:
    scene = Scene()
    bricked = np.concatenate([scene.trial[scene.trial % SITES == site][:1] for site in range(4)])
    scene.off[bricked] = True
    scene.pass_s(200)
    scene.confirm()
    scene.pass_s(900, lambda: scene.status is not Status.RUNNING)
    assert scene.status is Status.REVERTING
    assert scene.active.state.outages == ()
    assert scene.log_e > 7


def test_a_silent_device_counts_only_when_its_group_is_closed() -> None:
    scene = Scene()
    scene.off[scene.trial[:2]] = True
    scene.pass_s(900, lambda: scene.evidence.silent > 0)
    assert scene.active.state.site_bets.groups == 2


def test_silence_beyond_its_limit_fails_nothing_while_the_control_is_as_silent() -> None:
    """Devices in trial and others are lost one at a time, one tenth of each."""
    scene = Scene(trials=60, devices=600, gate=GateSpec(max_error_rate=0.9))
    lost = []
    for site in range(SITES):
        rows = scene.site(site)
        trial = rows[np.isin(rows, scene.trial)]
        others = np.setdiff1d(rows, trial)[:18].tolist()
        for turn, row in zip((3 + site, 13 + site), trial.tolist(), strict=False):
            others.insert(turn, row)
        lost.append(others)
    for turn in range(20):
        scene.off[[rows[turn] for rows in lost]] = True
        scene.pass_s(200)
    scene.pass_s(600)
    scene.confirm()
    scene.pass_s(60)
    assert scene.evidence.silent == 2 * SITES
    assert scene.evidence.silence.e_value > 1000
    assert scene.status is Status.COMPLETED
    assert scene.log_e < 3


def test_one_dark_device_is_no_outage_and_counts() -> None:
    scene = Scene()
    scene.off[scene.trial[:1]] = True
    scene.pass_s(900)
    assert (scene.evidence.failed, scene.evidence.set_aside) == (1, 0)


def test_a_release_that_bricks_one_site_goes_back_there() -> None:
    scene = Scene(trials=30)
    scene.off[scene.trial[scene.trial % SITES == 2]] = True
    scene.pass_s(900, lambda: scene.status is not Status.RUNNING)
    assert (scene.status, scene.active.state.reason) == (Status.HALTED, "one_site")
    (part,) = scene.active.state.taken_back
    assert (part.key, part.value, part.since) == ("site", "s2", None)
    assert "This rests on one site: 6 of 6 devices of site s2" in scene.active.state.text
    assert scene.active.takes_back(int(scene.site(2)[0]))
    assert not scene.active.takes_back(int(scene.site(3)[0]))


def test_a_dark_fleet_without_sites_is_one_stratum() -> None:
    scene = Scene(labelled=False)
    scene.off[:] = True
    scene.pass_s(900)
    assert scene.status is Status.RUNNING
    (outage,) = scene.active.state.outages
    assert (outage.key, outage.dark) == ("", TRIALS)


def test_without_enough_control_a_dark_site_holds_the_release() -> None:
    scene = Scene(trials=180)
    scene.off[scene.site(1)] = True
    scene.pass_s(900, lambda: scene.status is not Status.RUNNING)
    assert (scene.status, scene.active.state.reason) == (Status.HALTED, "one_site")
    assert not scene.evidence.sites.has_control


@pytest.mark.parametrize("reverse", [False, True])
def test_a_restart_begins_no_bet_anew_and_counts_no_dark_device_twice(*, reverse: bool) -> None:
    scene = Scene()
    scene.off[scene.trial[:2]] = True
    scene.pass_s(900)
    bets, before = scene.active.state.site_bets, scene.evidence
    assert bets.groups
    for _ in range(4):
        scene.restart(reverse=reverse)
        scene.pass_s(900)
        assert scene.active.state.site_bets == bets
    after = scene.evidence
    assert (after.silent, after.sites) == (before.silent, before.sites)


@pytest.mark.parametrize("at_s", [60.0, 200.0, 330.0])
def test_an_outage_in_which_the_hub_restarts_is_still_one_of_the_site(at_s: float) -> None:
    scene = Scene(trial_s=10.0)
    scene.off[scene.site(1)] = True
    scene.pass_s(at_s)
    scene.restart()
    scene.pass_s(1200)
    assert scene.status is Status.RUNNING
    assert (scene.evidence.failed, scene.evidence.set_aside) == (0, 4)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_failure_in_an_outage_is_nobodys_fault(*, reverse: bool) -> None:
    scene = Scene()
    hub, site = scene.hub, scene.site(1)
    scene.off[site] = True
    scene.pass_s(900)
    scene.off[site] = False
    failed = scene.trial[scene.trial % SITES == 1]
    for row in failed.tolist():
        hub.record(row, scene.outcome(OutcomeKind.TRIAL_FAILED))
    other = scene.trial[0].item()
    hub.record(other, scene.outcome(OutcomeKind.TRIAL_FAILED))
    for _ in range(2):
        active = scene.active
        assert (scene.evidence.failed, scene.evidence.set_aside) == (1, 4)
        assert active.set_aside.at_fault(np.sort(failed)).sum() == 0
        assert active.set_aside.at_fault(np.array([other])).all()
        assert {hub.engine.rollbacks("m", row) for row in failed.tolist()} == {0}
        assert hub.engine.rollbacks("m", other) == 1
        scene.restart(reverse=reverse)
    hub.command(scene.rollout, Verb.REVERT)
    scene.pass_s(30)
    spec = replace(scene.active.state.spec, selector="site=s1")
    hub.engine.plan(spec, rollout_id="ro-9", salt=1, now=hub.now)


def test_a_failure_by_itself_still_bars_the_release_from_a_device() -> None:
    scene = Scene()
    hub = scene.hub
    for row in scene.site(1).tolist():
        hub.record(row, scene.outcome(OutcomeKind.TRIAL_STARTED))
        hub.record(row, scene.outcome(OutcomeKind.TRIAL_FAILED))
    hub.command(scene.rollout, Verb.REVERT)
    scene.pass_s(30)
    spec = replace(scene.active.state.spec, selector="site=s1")
    with pytest.raises(OperatorError, match="failed on each of these devices"):
        hub.engine.plan(spec, rollout_id="ro-9", salt=1, now=hub.now)


def test_devices_without_a_chance_to_begin_are_no_control() -> None:
    """A wave of one region: devices of the other region say nothing about its canaries."""
    waves = (WaveSpec(percent=10, selector="region=north"),)
    stratum = watched(RolloutSpec(model="m", release="2", waves=waves)).stratum_of
    north, south = {"site": "a", "region": "north"}, {"site": "a", "region": "south"}
    assert stratum(north) != stratum(south)
    assert stratum(north)[0] == stratum(south)[0] == "a"
