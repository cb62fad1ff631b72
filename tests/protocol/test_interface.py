"""Changes of the interface: clients of the old release notice each of them, and nothing else."""

from typing import Any

import pytest
from msgspec.structs import replace

from edgefleet.protocol.interface import changes_from, interface_changes
from edgefleet.protocol.release import ReleaseManifest, TensorSpec
from edgefleet.testing import fake_manifest

X = TensorSpec(name="x", datatype="FP32", shape=(-1, 64))
Y = TensorSpec(name="y", datatype="FP32", shape=(-1, 10))
MORE = TensorSpec(name="more", datatype="INT64", shape=(-1,))
BEFORE = fake_manifest("digits", "1", ("a", "b"), now=1.0)


def after(**changes: Any) -> ReleaseManifest:
    variants = tuple(replace(one, **changes) for one in BEFORE.variants)
    return replace(BEFORE, release="2", variants=variants)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"inputs": (replace(X, name="image"),)}, "Input x is gone; image is new."),
        ({"inputs": (X, MORE)}, "Input more INT64 [-1] is new, and clients do not send it."),
        ({"inputs": (replace(X, datatype="FP16"),)}, "Input x is FP16 [-1, 64], not FP32 [-1, 64]."),
        ({"inputs": (replace(X, shape=(-1, 32)),)}, "Input x is FP32 [-1, 32], not FP32 [-1, 64]."),
        ({"inputs": (replace(X, shape=(1, 64)),)}, "Input x is FP32 [1, 64], not FP32 [-1, 64]."),
        ({"inputs": (replace(X, shape=(-1, 8, 8)),)}, "Input x is FP32 [-1, 8, 8], not FP32 [-1, 64]."),
        ({"outputs": (replace(Y, name="z"),)}, "Output y is gone; z is new."),
        ({"outputs": (replace(Y, shape=(-1, 12)),)}, "Output y is FP32 [-1, 12], not FP32 [-1, 10]."),
        ({"outputs": (replace(Y, shape=(-1, -1)),)}, "Output y is FP32 [-1, -1], not FP32 [-1, 10]."),
        ({"outputs": (MORE, Y)}, "Output more is new, and not the last."),
    ],
)  # fmt: skip
def test_a_change_that_clients_notice_is_named_once(changes: dict[str, Any], text: str) -> None:
    assert text in interface_changes(BEFORE, after(**changes))
    assert len(set(found := interface_changes(BEFORE, after(**changes)))) == len(found)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"outputs": (Y, MORE)},  # a further output, at the end
        {"inputs": (replace(X, shape=(-1, -1)),)},  # accepts more
        {"max_batch": 64},
        {"memory_limit_mib": 1, "precision": "int8"},
    ],
)
def test_a_change_that_no_client_notices_is_none(changes: dict[str, Any]) -> None:
    assert interface_changes(BEFORE, after(**changes)) == ()


def test_a_smaller_batch_the_scores_and_the_task_are_a_part_of_it() -> None:
    old = replace(BEFORE, variants=tuple(replace(one, max_batch=8) for one in BEFORE.variants))
    assert interface_changes(old, BEFORE) == ("The largest batch is 1, not 8.",)
    assert BEFORE.quality is not None
    logits = replace(BEFORE, quality=replace(BEFORE.quality, scores="logits"))
    assert interface_changes(BEFORE, logits) == ("The class scores are logits, not probabilities.",)
    other = replace(BEFORE, task="none", quality=None)
    assert interface_changes(BEFORE, other) == ("The task is none, not classification.",)


def test_outputs_in_another_order_are_a_change() -> None:
    two = after(outputs=(Y, MORE))
    assert interface_changes(two, after(outputs=(MORE, Y))) == (
        "The outputs are in the order more, y, not y, more.",
    )


def test_a_profile_of_one_release_alone_is_not_compared() -> None:
    new = fake_manifest("digits", "2", ("c",), now=1.0)
    assert interface_changes(BEFORE, new) == ()


def test_each_running_release_is_compared_except_the_release_itself() -> None:
    new = after(outputs=(replace(Y, name="z"),))
    third = replace(BEFORE, release="3")
    found = changes_from((BEFORE, new, third), new)
    assert found == (
        "Against release 1: Output y is gone; z is new.",
        "Against release 3: Output y is gone; z is new.",
    )
