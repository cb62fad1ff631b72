"""A device's runtime versions and comparisons decide whether a release fits it."""

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.comparisons import Elementwise
from edgefleet.protocol.release import LAYOUTS, ReleaseManifest
from edgefleet.rollout.fleet.eligibility import Misfit, is_older, misfit, variants_of
from edgefleet.rollout.fleet.fleet import Kit
from edgefleet.testing import FakeDevice, FakeFleet, fake_manifest
from support.plans import spec

NEAR = Elementwise(outputs=("y",), absolute=0.1, relative=0.0)


@pytest.mark.parametrize(
    ("version", "least", "older"),
    [
        ("1.9.0", "1.22", True),  # numbers, not texts
        ("1.22.0", "1.22", False),
        ("1.22", "1.22.1", True),
        ("1.31.1+cu12", "1.25", False),
        ("1.19.2rc1", "1.22", True),
        ("", "1.22", False),
        ("unknown", "1.22", False),
        ("1.22", "", False),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, least: str, older: bool) -> None:
    assert is_older(version, least) is older


def needing(version: str) -> ReleaseManifest:
    manifest = fake_manifest("digits", "2", ("generic_x86",), now=1.0)
    variants = tuple(replace(one, min_runtime=version) for one in manifest.variants)
    return replace(manifest, variants=variants)


def regressor(manifest: ReleaseManifest) -> ReleaseManifest:
    golden = replace(manifest.golden, comparison=NEAR)
    return replace(manifest, task="regression", golden=golden, quality=None)


def kit(version: str = "", comparisons: tuple[str, ...] = ()) -> Kit:
    versions = frozenset({("onnx", version)} if version else ())
    return Kit(
        "generic_x86", frozenset({"onnx"}), versions=versions, comparisons=frozenset(comparisons)
    )


def test_an_older_runtime_is_a_misfit_and_an_unknown_one_is_not() -> None:
    variants = variants_of(needing("1.23"))
    assert misfit(kit("1.22.0"), variants) is Misfit.RUNTIME_TOO_OLD
    assert misfit(kit("1.23.2"), variants) is None
    assert misfit(kit(), variants) is None


def test_a_device_without_the_comparison_is_a_misfit() -> None:
    variants = variants_of(needing(""))
    assert misfit(kit(), variants, "") is None
    assert misfit(kit(), variants, "elementwise") is Misfit.COMPARISON_MISSING
    assert misfit(kit(comparisons=("top1",)), variants, "elementwise") is Misfit.COMPARISON_MISSING
    assert misfit(kit(comparisons=("elementwise",)), variants, "elementwise") is None


def test_an_older_agent_is_never_offered_a_release_that_it_cannot_read() -> None:
    fleet = FakeFleet([FakeDevice("old"), FakeDevice("new", comparisons=("elementwise",))])
    fleet.publish("1", change=regressor)
    rollout = fleet.start(spec("1", 100))
    fleet.run(rollout, at_most_s=3600)
    assert (fleet.devices["old"].running, fleet.devices["new"].running) == (None, "1")
    assert fleet.view(rollout).ineligible == {"comparison_missing": 1}


def halved(manifest: ReleaseManifest) -> ReleaseManifest:
    """The manifest with a BF16 input, in a variant of another profile."""
    variant = manifest.variants[0]
    tensor = replace(variant.inputs[0], datatype="BF16")
    other = replace(variant, profile="jetson_nano", inputs=(tensor,))
    return replace(manifest, variants=(variant, other))


def test_an_agent_that_cannot_read_a_datatype_of_any_variant_is_a_misfit() -> None:
    variants = variants_of(halved(needing("")))
    assert misfit(kit(), variants) is Misfit.DATATYPE_UNKNOWN
    assert misfit(kit(), variants_of(needing(""))) is None, "it knows the types before BF16"
    knows = Kit("generic_x86", frozenset({"onnx"}), datatypes=frozenset(LAYOUTS))
    assert misfit(knows, variants) is None


def test_an_older_agent_is_not_offered_a_release_with_bf16() -> None:
    fleet = FakeFleet([FakeDevice("old"), FakeDevice("new", datatypes=tuple(LAYOUTS))])
    fleet.publish("1", change=halved)
    rollout = fleet.start(spec("1", 100))
    fleet.run(rollout, at_most_s=3600)
    assert (fleet.devices["old"].running, fleet.devices["new"].running) == (None, "1")
    assert fleet.view(rollout).ineligible == {"datatype_unknown": 1}


def test_a_release_that_no_device_can_prove_is_not_planned() -> None:
    fleet = FakeFleet([FakeDevice("old")])
    fleet.publish("1", change=regressor)
    with pytest.raises(OperatorError, match="comparison_missing") as caught:
        fleet.plan(spec("1", 100))
    assert caught.value.code == "fleet_empty"


def test_a_device_with_a_new_runtime_becomes_eligible() -> None:
    fleet = FakeFleet([FakeDevice("a", versions=(("onnx", "1.20.1"),)), FakeDevice("b")])
    fleet.publish("1", change=lambda _: replace(needing("1.23"), release="1"))
    rollout = fleet.start(spec("1", 100))
    assert fleet.view(rollout).ineligible == {"runtime_too_old": 1}
    fleet.engine.fleet.set_facts(
        0, "generic_x86", {}, runtimes=("onnx",), versions=[("onnx", "1.25.0")]
    )
    assert fleet.view(rollout).ineligible == {}
