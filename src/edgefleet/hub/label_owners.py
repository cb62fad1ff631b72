"""Labels and their two owners: the operator, whose labels override, and the device itself."""

from array import array
from collections.abc import Mapping
from sys import intern

from edgefleet.base.errors import OperatorError
from edgefleet.base.ids import check_name
from edgefleet.base.limits import LABEL_VALUE_CHARS, LABELS_PER_DEVICE
from edgefleet.base.texts import counted
from edgefleet.hub.limits import LABEL_SETS
from edgefleet.hub.shared_values import SharedValues

Labels = Mapping[str, str]
_Pair = tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]


class LabelOwners:
    """The labels of each device by owner, for the rows of the fleet. Equal ones are kept once."""

    def __init__(self) -> None:
        self._pairs = SharedValues[_Pair]()
        self._at = array("L")  # the number of its pair, of each row

    def add(self, by_operator: Labels, by_device: Labels) -> Labels:
        """Add the next row. Returns the labels that count."""
        self._at.append(self._pairs.use((_items(by_operator), _items(by_device))))
        return {**by_device, **by_operator}

    def set(self, row: int, by_operator: Labels, by_device: Labels) -> Labels:
        """Replace the labels of both owners. Returns the labels that count."""
        number = self._pairs.use((_items(by_operator), _items(by_device)))
        self._pairs.drop(self._at[row])
        self._at[row] = number
        return {**by_device, **by_operator}

    def forget(self, row: int) -> None:
        """The device of the row was removed: it has no labels."""
        self.set(row, {}, {})

    def by_operator(self, row: int) -> dict[str, str]:
        return dict(self._pairs[self._at[row]][0])

    def by_device(self, row: int) -> dict[str, str]:
        return dict(self._pairs[self._at[row]][1])

    def takes(self, row: int, by_device: Labels) -> bool:
        """True if the labels that a device reports are valid, and the table has room for them."""
        if len(self._pairs) >= LABEL_SETS and by_device != self.by_device(row):
            return False
        try:
            check_labels(by_device)
        except OperatorError:
            return False
        return len({**by_device, **self.by_operator(row)}) <= LABELS_PER_DEVICE


def check_labels(labels: Labels) -> None:
    """Raises OperatorError ``bad_request`` or ``name_invalid``."""
    if len(labels) > LABELS_PER_DEVICE:
        raise OperatorError(
            "bad_request",
            f"{counted(len(labels), 'label')}; a device may have {LABELS_PER_DEVICE}.",
            field="labels",
        )
    for key, value in labels.items():
        for part in key.split("/", 1):  # Kubernetes allows one prefix before a slash
            check_name(part, field="labels")
        if len(value) > LABEL_VALUE_CHARS:
            raise OperatorError(
                "bad_request",
                f"The value has {len(value)} characters; {LABEL_VALUE_CHARS} are allowed.",
                field=f"labels.{key}",
            )
        if value:
            check_name(value, field=f"labels.{key}")


def _items(labels: Labels) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((intern(key), intern(value)) for key, value in labels.items()))
