"""The classes of a rollout: the profiles, and the values of the labels that the plan names.

The plan fixes the classes, so that the number of tests, and with it the share of alpha of each, is
known before a device begins. A value that appears later is in no class.
"""

import numpy as np

from edgefleet.base.errors import OperatorError
from edgefleet.base.texts import counted
from edgefleet.protocol.rollout import PROFILE, DeviceClass
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.scope import Scope
from edgefleet.rollout.limits import CLASS_DEVICES, CLASS_LABELS, CLASSES, LABEL_KEYS_NAMED


def check_classes(labels: tuple[str, ...], scope: Scope, fleet: Fleet) -> None:
    """Check the labels that a plan names. Raises OperatorError ``gate_invalid``."""
    wrong = ""
    unknown = [key for key in labels if key not in fleet.label_keys]
    if len(labels) > CLASS_LABELS:
        wrong = f"{counted(len(labels), 'label')} are named; at most {CLASS_LABELS} are allowed."
    elif len(set(labels)) < len(labels):
        wrong = "A label is named twice."
    elif PROFILE in labels:
        wrong = "Profiles are always tested; name labels only."
    elif unknown:
        known = ", ".join(sorted(fleet.label_keys)[:LABEL_KEYS_NAMED]) or "none"
        wrong = f"No device carries the label {unknown[0]!r}; known labels: {known}."
    elif (count := len(classes_of(scope, fleet, labels))) > CLASSES:
        wrong = f"These labels have {count} values; at most {CLASSES} can be tested apart."
    if wrong:
        raise OperatorError("gate_invalid", wrong, field="gate.classes")


def classes_of(scope: Scope, fleet: Fleet, labels: tuple[str, ...]) -> tuple[DeviceClass, ...]:
    """The classes among the eligible devices.

    A value is a class if enough devices have it for a verdict, and not all of them.
    """
    devices = int(np.count_nonzero(scope.eligible_mask()))
    return tuple(
        DeviceClass(key=key, value=value, devices=count)
        for key in (PROFILE, *labels)
        for value, count in sorted(_count_values(scope, fleet, key).items())
        if CLASS_DEVICES <= count < devices
    )


def _count_values(scope: Scope, fleet: Fleet, key: str) -> dict[str, int]:
    """The number of eligible devices with each value of a label, or with each profile."""
    mask = scope.eligible_mask()
    if key == PROFILE:
        numbers = fleet.kit_ids[mask]
        values: list[str | None] = [fleet.kit(one).profile for one in range(fleet.kit_count)]
    else:
        numbers = fleet.label_ids[mask]
        values = [fleet.label_set(one).get(key) for one in range(fleet.label_set_count)]
    found: dict[str, int] = {}
    counts = np.bincount(numbers, minlength=len(values)).tolist()
    for value, count in zip(values, counts, strict=True):
        if count and value is not None:
            found[value] = found.get(value, 0) + count
    return found
