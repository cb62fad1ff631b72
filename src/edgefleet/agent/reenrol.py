"""A new credential from a hub that made the old one and lost its record, as after a restore."""

from typing import Final

from edgefleet.base.network import Link
from edgefleet.protocol.device import EnrolAnswer, Facts
from edgefleet.protocol.restored import ReenrolRequest
from edgefleet.protocol.version import PROTOCOL
from edgefleet.protocol.wire import decode, encode, error_from_answer

REENROL_PATH: Final = "/device/v1/reenrol"
UNKNOWN: Final = "device_unknown"


def reenrol(link: Link, token: str, facts: Facts) -> EnrolAnswer:
    """The hub's answer. Raises the hub's error, such as while the operator has not allowed it."""
    request = ReenrolRequest(protocol=PROTOCOL, facts=facts, labels=dict(facts.labels or ()))
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    answer = link.request("POST", REENROL_PATH, headers=headers, body=encode(request))
    if answer.status != 200:
        raise error_from_answer(answer.status, answer.body)
    return decode(answer.body, EnrolAnswer, code="answer_malformed")
