from collections import Counter
from dataclasses import replace

import pytest

from edgefleet.agent.table import Stage
from edgefleet.base.ids import sha256_hex
from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.rollout import Verb
from edgefleet.security.signing import PublisherKey
from edgefleet.sim.load.link import LinkFacts, Outages
from edgefleet.testing import MemoryHub, StoredOutcome
from support.sim_releases import KEY, behaviour, model_bytes
from support.virtual_hub import VirtualFleet

ROUGH = LinkFacts(latency_s=0.3, loss=0.15, doubling=0.2)


def settled(fleet: VirtualFleet, release: str) -> None:
    """Whether every device runs ``release``, confirmed."""
    fleet.hub.publish(release)
    fleet.hub.start(release)
    fleet.run(60)
    assert set(fleet.releases().values()) == {release}


def test_a_device_installs_proves_and_confirms_what_is_offered() -> None:
    fleet = VirtualFleet()
    device = fleet.add("one")
    settled(fleet, "1")
    kinds = [stored.outcome.kind for stored in fleet.hub.memory.outcomes]
    assert kinds == [OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED]
    assert device.ran == {"digits": ("1",)}
    (mine,) = device.state.models.values()
    assert mine.stage is Stage.IDLE
    assert device.disk.read("current") == f"digits {mine.active}\n".encode()


def test_a_release_that_sees_badly_is_given_up_by_the_device_itself() -> None:
    fleet = VirtualFleet()
    device = fleet.add("one")
    settled(fleet, "1")
    fleet.hub.publish("2")
    fleet.laboratory.behaviours["2"] = behaviour(0.6)
    fleet.hub.start("2")
    fleet.run(60)
    last = fleet.hub.memory.outcomes[-1].outcome
    assert (last.kind, last.reason) == (OutcomeKind.TRIAL_FAILED, "confidence_drop")
    assert device.releases == {"digits": "1"}
    assert device.ran == {"digits": ("1", "2")}


def test_a_quiet_device_cannot_judge_and_confirms_until_the_hub_takes_it_back() -> None:
    fleet = VirtualFleet()
    device = fleet.add("quiet", requests_s=0.05)
    settled(fleet, "1")
    fleet.hub.publish("2")
    fleet.laboratory.behaviours["2"] = behaviour(0.6)
    rollout = fleet.hub.start("2")
    fleet.run(60)
    assert device.releases == {"digits": "2"}
    fleet.hub.command(rollout, Verb.REVERT)
    fleet.run(20)
    assert device.releases == {"digits": "1"}
    last = fleet.hub.memory.outcomes[-1].outcome
    assert (last.kind, last.release) == (OutcomeKind.REVERTED, "2")


def test_a_release_that_fails_its_golden_set_never_serves() -> None:
    fleet = VirtualFleet()
    device = fleet.add("one")
    settled(fleet, "1")
    fleet.hub.publish("4")
    fleet.laboratory.behaviours["4"] = behaviour(passed=False)
    fleet.hub.start("4")
    fleet.run(60)
    last = fleet.hub.memory.outcomes[-1].outcome
    assert (last.kind, last.reason) == (OutcomeKind.REFUSED, "golden_failed")
    assert device.ran == {"digits": ("1",)}


def test_a_stranger_s_signature_is_refused_on_the_device() -> None:
    fleet = VirtualFleet()
    device = fleet.add("one")
    fleet.hub.publish("1", PublisherKey.generate())
    fleet.hub.start("1")
    fleet.run(30)
    last = fleet.hub.memory.outcomes[-1].outcome
    assert (last.kind, last.reason) == (OutcomeKind.REFUSED, "signature_invalid")
    assert device.ran == {}


def test_bytes_that_are_not_those_signed_are_refused_and_not_kept() -> None:
    fleet = VirtualFleet()
    device = fleet.add("one")
    fleet.hub.publish("1")
    fleet.hub.artifacts[sha256_hex(model_bytes("1"))] = b"x" * len(model_bytes("1"))
    fleet.hub.start("1")
    fleet.run(30)
    last = fleet.hub.memory.outcomes[-1].outcome
    assert (last.kind, last.reason) == (OutcomeKind.REFUSED, "digest_mismatch")
    assert device.disk.read("models/digits/a/model.onnx") is None
    assert device.disk.read("models/digits/b/model.onnx") is None


def test_a_full_disk_defers_and_the_attempt_goes_on_once_there_is_room() -> None:
    fleet = VirtualFleet()
    device = fleet.add("full", disk_bytes=50_000)
    fleet.hub.publish("1")
    fleet.hub.start("1")
    fleet.run(30)
    deferred = fleet.hub.memory.outcomes[-1].outcome
    assert (deferred.kind, deferred.reason) == (OutcomeKind.DEFERRED, "disk_full")
    device.disk.capacity_bytes = 1 << 20
    fleet.run(120)
    assert device.releases == {"digits": "1"}
    assert len(fleet.hub.memory.outcomes) == 3


def test_an_offline_device_catches_up_when_it_is_back() -> None:
    fleet = VirtualFleet(start=0.0)
    away = LinkFacts(outages=Outages(windows=((1.0, 200.0),)))
    device = fleet.add("away", link=away)
    fleet.hub.publish("1")
    fleet.hub.start("1")
    fleet.run(199)
    assert device.releases == {}
    fleet.run(250)  # backoff grows meanwhile, but the device never gives up
    assert device.releases == {"digits": "1"}


def test_a_download_goes_on_where_the_link_broke() -> None:
    fleet = VirtualFleet(start=0.0)
    # 60 kB at 4 kB/s take 15 s; the link is never up for longer than 8.
    flapping = LinkFacts(bandwidth_bytes_s=4000.0, outages=Outages(up_s=8.0, down_s=3.0))
    device = fleet.add("slow", link=flapping)
    fleet.hub.publish("1")
    fleet.hub.start("1")
    fleet.run(200)
    assert device.releases == {"digits": "1"}


def mixed(fleet: VirtualFleet, count: int = 40) -> None:
    for number in range(count):
        link = ROUGH
        if number % 5 == 0:
            link = replace(ROUGH, outages=Outages(up_s=20.0, down_s=7.0, shift_s=float(number)))
        fleet.add(f"d{number}", link=link)


def test_lost_and_doubled_messages_change_nothing_in_the_end() -> None:
    fleet = VirtualFleet()
    mixed(fleet)
    fleet.hub.publish("1")
    fleet.hub.start("1")
    fleet.run(300)
    assert set(fleet.releases().values()) == {"1"}
    assert fleet.hub.counts() == Counter({"1 trial_started": 40, "1 confirmed": 40})
    assert fleet.hub.replays > 100  # so the duplicates did arrive


class ForgetfulHub(MemoryHub):
    """It forgets which outcomes it has: the planted bug."""

    def store(self, row: int, outcomes: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
        self.outcomes += [StoredOutcome(row, outcome, self.now) for outcome in outcomes]
        return outcomes


def test_a_hub_that_counts_twice_is_found_by_the_same_run() -> None:
    fleet = VirtualFleet(kind=ForgetfulHub)
    mixed(fleet)
    fleet.hub.publish("1")
    fleet.hub.start("1")
    fleet.run(300)
    assert fleet.hub.counts() != Counter({"1 trial_started": 40, "1 confirmed": 40})


def story(seed: int) -> list[str]:
    fleet = VirtualFleet(seed=seed)
    mixed(fleet, 12)
    fleet.hub.publish("1")
    fleet.hub.publish("2")
    fleet.laboratory.behaviours["2"] = behaviour(0.6)
    fleet.hub.start("1")
    fleet.run(120)
    fleet.hub.start("2")
    fleet.run(60)
    return fleet.hub.trace


def test_one_seed_is_one_trace() -> None:
    first = story(7)
    assert len(first) > 200
    assert story(7) == first
    assert story(8) != first


@pytest.mark.parametrize("after_s", [0.3, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0])
def test_a_power_cut_at_any_time_ends_in_the_same_place(after_s: float) -> None:
    fleet = VirtualFleet()
    device = fleet.add("one")
    settled(fleet, "1")
    fleet.hub.publish("2")
    fleet.hub.start("2")
    fleet.run(after_s)
    device.power_off()
    fleet.run(5)
    device.boot()
    fleet.run(60)
    assert device.releases == {"digits": "2"}
    assert fleet.hub.counts()["2 confirmed"] == 1
    assert KEY.public.keyid in fleet.around.trusted
