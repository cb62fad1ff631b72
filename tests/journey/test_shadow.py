"""A shadow phase on real agents at a real hub: a bad release is refused before it answers a caller."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from edgefleet.protocol.rollout import Command, RolloutSpec, RolloutView, Status, Verb, WaveSpec
from edgefleet.protocol.shadow import ShadowSpec
from support.asking import Asker, digits
from support.real_fleet import GATE, RealFleet, real_fleet
from support.tiny_releases import TinyRelease, publish, tiny_release

pytestmark = pytest.mark.slow

SHADOW = ShadowSpec(share=0.5, samples=30, for_s=90.0)


def rolled_out(fleet: RealFleet, release: TinyRelease, end: Status) -> RolloutView:
    """Publish the release and roll it out, with a shadow phase, until the rollout has ended so."""
    client = fleet.client
    publish(client, fleet.key, release)
    name = release.manifest.release
    spec = RolloutSpec(
        model="digits", release=name, waves=(WaveSpec(percent=100),), gate=GATE, bake_s=0,
        shadow=SHADOW,
    )  # fmt: skip
    rollout = client.plan(spec).id
    client.command(rollout, Verb.START, Command())
    fleet.until(lambda: client.rollout(rollout).status is end)
    return client.rollout(rollout)


@pytest.mark.long
def test_a_shadowed_bad_release_is_refused_before_it_ever_answers_a_caller(tmp_path: Path) -> None:
    good = tiny_release(tmp_path / "releases", "1").model
    bad = tiny_release(tmp_path / "bad", "2")  # other weights, and a golden set that fits them
    better = tiny_release(tmp_path / "better", "3", chain=2, seed=sum(b"1"))  # the same answers
    models = {"1": good, "2": bad.model, "3": better.model}
    with real_fleet(tmp_path) as fleet:
        agents = [fleet.add("one"), fleet.add("two")]
        fleet.roll_out("1")
        with ExitStack() as stack:
            askers = [
                stack.enter_context(Asker(agent.serve, digits(models), pause_s=0.02))
                for agent in agents
            ]
            refused = rolled_out(fleet, bad, Status.REFUSED)
            assert set(refused.evidence.reasons) == {"answers_differ"}
            assert "the agreement with the active release fell from 100 % to" in refused.text
            assert "(limit 80.0%)" in refused.text
            assert refused.evidence.exposed == 0
            assert [set(asker.answers) for asker in askers] == [{"1"}, {"1"}]
            rolled_out(fleet, better, Status.COMPLETED)
            for asker in askers:
                asker.wait_for_answers(5)
        assert [asker.faults for asker in askers] == [[], []]
        assert [set(asker.answers) for asker in askers] == [{"1", "3"}, {"1", "3"}]
        (third, second, _) = fleet.client.device_history("one").attempts
        assert (second.kind, second.reason) == ("refused", "answers_differ")
        assert (third.kind, third.reason) == ("confirmed", "shadow_passed")
        assert "agreement 100.0%" in third.detail
