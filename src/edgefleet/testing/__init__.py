"""Public fixtures: test your own gate, plan or policy against the real engine, in virtual time.

    played = play(RolloutSpec(model="m", release="2"), 1000, behaviour=Behaviour(fails=0.2))
    assert played.status is Status.REVERTED

docs/own-gate.md has a complete example.
"""

from edgefleet.testing.behaviour import Behaviour, Fate
from edgefleet.testing.fake_device import FakeDevice
from edgefleet.testing.fake_fleet import FakeFleet, FateOf
from edgefleet.testing.memory_hub import MemoryHub, Noted, StoredOutcome
from edgefleet.testing.play import Played, play
from edgefleet.testing.release import fake_manifest
from edgefleet.testing.simulate import simulate

__all__ = [
    "Behaviour",
    "FakeDevice",
    "FakeFleet",
    "Fate",
    "FateOf",
    "MemoryHub",
    "Noted",
    "Played",
    "StoredOutcome",
    "fake_manifest",
    "play",
    "simulate",
]
