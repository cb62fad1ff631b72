"""The knobs of a plan, by the fields of its types: ``gate.soak_s``, ``budgets``, ..."""

import msgspec

from edgefleet.protocol.rollout import RolloutSpec


def knob_fields(kind: type[msgspec.Struct] = RolloutSpec, above: str = "") -> list[str]:
    """Every field, those of a part under the part's own name. A list of parts is one knob."""
    found = []
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found += knob_fields(field.type, f"{above}{field.name}.")
        else:
            found.append(above + field.name)
    return found
