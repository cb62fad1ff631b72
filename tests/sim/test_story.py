"""The real engine and the real agent core, connected by a bad network."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import inf

import pytest

from edgefleet.protocol.rollout import RolloutView, Status
from edgefleet.sim.load.device import DeviceFacts
from edgefleet.sim.load.population import Mix, population
from support.sim_releases import MODEL, behaviour
from support.virtual_hub import VirtualFleet

COUNT = 600  # so that the first wave has enough devices for a verdict
START = 1000.0
ENDED = (Status.COMPLETED, Status.REVERTED, Status.REFUSED)


def people(
    count: int = COUNT, *, loss: float = 0.0, doubling: float = 0.0, **mix: float
) -> tuple[DeviceFacts, ...]:
    made = population(count, seed=7, start=START, interval_s=2.0, mix=Mix(**mix))
    return tuple(
        replace(facts, link=replace(facts.link, loss=loss, doubling=doubling)) for facts in made
    )


def lost_for_good(devices: Iterable[DeviceFacts]) -> int:
    return sum(end == inf for facts in devices for _, end in facts.link.outages.windows)


@dataclass
class Story:
    """The demo's story in virtual time: 1 to all, 2 in waves, 3 goes bad, 4 is refused."""

    people: tuple[DeviceFacts, ...]
    seed: int = 7
    views: dict[str, RolloutView] = field(default_factory=dict)
    most_on: dict[str, int] = field(default_factory=dict)  # release -> devices at once

    def tell(self) -> "Story":
        virtual = VirtualFleet(seed=self.seed, start=START)
        self.hub, self.fleet = virtual.hub, virtual.simulated
        virtual.laboratory.behaviours = {
            "1": behaviour(0.85),
            "2": behaviour(0.95),
            "3": behaviour(0.25),
            "4": behaviour(passed=False),
        }
        for facts in self.people:
            self.fleet.enrol(replace(facts), "claim")
        self.run(virtual, 10)
        for release in "1234":
            self.hub.publish(release)
            percents = (100.0,) if release == "1" else (1.0, 10.0, 100.0)
            rollout = self.hub.start(release, percents)
            for _ in range(600):
                self.run(virtual, 1)
                if self.hub.view(rollout).status in ENDED:
                    break
            self.views[release] = self.hub.view(rollout)
        self.run(virtual, 120)  # everything heals, everybody may catch up
        return self

    def run(self, virtual: VirtualFleet, seconds: float) -> None:
        virtual.run(seconds)
        for release, count in self.fleet.report("progress").on_release.get(MODEL, {}).items():
            self.most_on[release] = max(self.most_on.get(release, 0), count)


@pytest.fixture(scope="module")
def story() -> Story:
    return Story(people()).tell()


def test_each_release_ends_as_it_must(story: Story) -> None:
    ends = {release: (view.status, view.reason) for release, view in story.views.items()}
    assert ends["1"] == ends["2"] == (Status.COMPLETED, "completed")
    assert ends["3"][0] is Status.REVERTED
    assert ends["3"][1] in ("error_rate", "confidence_drop")
    assert ends["4"] == (Status.REFUSED, "refused_by_devices")


def test_a_bad_release_never_runs_on_more_devices_than_its_open_wave_allows(story: Story) -> None:
    ran = story.fleet.report("summary").ran[MODEL]
    opened = [wave for wave in story.views["3"].waves if wave.cut is not None]
    assert len(opened) <= 2
    assert 0 < story.most_on["3"] <= ran["3"] <= opened[-1].cut
    assert "4" not in ran


def test_in_the_end_every_device_that_can_be_reached_is_on_the_good_release(story: Story) -> None:
    summary = story.fleet.report("summary")
    gone = lost_for_good(story.people)
    assert summary.on_release == {MODEL: {"2": COUNT - gone}}
    assert summary.ran_now[MODEL]["3"] == {"2": summary.ran[MODEL]["3"]}


def test_the_engine_counts_what_the_devices_did(story: Story) -> None:
    assert story.views["3"].exposed == story.fleet.report("summary").ran[MODEL]["3"]


@pytest.mark.long
def test_lost_and_doubled_messages_lead_to_the_same_end(story: Story) -> None:
    rough = Story(people(loss=0.05, doubling=0.1)).tell()
    assert rough.hub.replays > 100
    assert {release: view.status for release, view in rough.views.items()} == {
        release: view.status for release, view in story.views.items()
    }
    assert rough.fleet.report("summary").on_release == story.fleet.report("summary").on_release


def test_one_seed_is_one_trace() -> None:
    def digest(seed: int) -> str:
        told = Story(people(60), seed=seed).tell()
        return sha256("\n".join(told.hub.trace).encode()).hexdigest()

    first = digest(7)
    assert digest(7) == first
    assert digest(8) != first


def test_a_population_follows_from_its_seed_and_grows_without_changing() -> None:
    small, large = (population(count, seed=3, start=0.0, interval_s=2.0) for count in (300, 1000))
    assert large[:300] == small
    profiles = {facts.facts.profile for facts in large}
    assert profiles == {"generic_x86", "jetson_nano", "raspberry_pi", "coral_tpu"}
    assert 20 <= lost_for_good(large) <= 60
    quiet = sum(facts.requests_s < 5 for facts in large)
    assert abs(quiet - 1000 * Mix().quiet) <= 40
