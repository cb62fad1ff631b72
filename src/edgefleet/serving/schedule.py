"""The request parameters of Triton's schedule policy and sequences, as every protocol has them."""

from collections.abc import Mapping
from typing import Final

from edgefleet.base.errors import OperatorError

_SEQUENCE: Final = ("sequence_id", "sequence_start", "sequence_end")
_LONGEST_US: Final = 24 * 3_600 * 1_000_000


def timeout_us(parameters: Mapping[str, object]) -> int:
    """``timeout`` in microseconds, 0 without one. The other parameters of a schedule are refused.

    A parameter with its default value (0, false, an empty text or null) is accepted. Raises
    OperatorError ``bad_request``.
    """
    for name in _SEQUENCE:
        if parameters.get(name):
            raise OperatorError(
                "bad_request",
                "Sequences are not supported: each request is answered by itself.",
                field=name,
                hint="Send the state of the sequence as an input of the model.",
            )
    if parameters.get("priority"):
        raise OperatorError(
            "bad_request",
            "Priorities are not supported: requests to a model are answered in their order.",
            field="priority",
            hint="Send no priority, or 0.",
        )
    given = parameters.get("timeout")
    if given is None:
        return 0
    if type(given) is not int or not 0 <= given <= _LONGEST_US:
        raise OperatorError(
            "bad_request",
            f"The timeout must be a number of microseconds from 0 to {_LONGEST_US}.",
            field="timeout",
        )
    return given
