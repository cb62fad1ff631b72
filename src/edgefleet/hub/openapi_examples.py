"""Examples of request bodies in the OpenAPI document, by the name of the endpoint."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from edgefleet.protocol.device_commands import LabelDevice, RenameDevice
from edgefleet.protocol.hooks import AddHook, ChangeHook
from edgefleet.protocol.labels import Label
from edgefleet.protocol.operator import ClaimRequest, PublishRequest, TrustKey, TruthRequest
from edgefleet.protocol.people import AddUser, ChangePassword, ChangeUser, CreateToken, Role
from edgefleet.protocol.release import MANIFEST_TYPE, Envelope, Signature
from edgefleet.protocol.rollout import Freeze, RolloutSpec, WaveSpec
from edgefleet.protocol.wire import Wire

_PLAN: Final = RolloutSpec(
    model="detector",
    release="3",
    selector="site=lyon",
    waves=(WaveSpec(percent=1), WaveSpec(percent=10), WaveSpec(percent=100)),
)

EXAMPLES: Final[Mapping[str, Wire]] = MappingProxyType(
    {
        "claim": ClaimRequest(count=50, valid_s=7_200, labels={"site": "lyon"}),
        "trust": TrustKey(name="release-team", public_key="A" * 43 + "="),
        "publish": PublishRequest(
            envelope=Envelope(
                payloadType=MANIFEST_TYPE,
                payload="e30=",
                signatures=(Signature(keyid="3f9a0c11d2", sig="AAAA"),),
            )
        ),
        "hook_add": AddHook(url="https://ci.example.org/hooks/fleet", kinds=("rollout.*",)),
        "hook_change": ChangeHook(enabled=False),
        "label_device": LabelDevice(set={"tier": "gold"}, unset=("canary",)),
        "rename_device": RenameDevice(name="cam-0420"),
        "add_truth": TruthRequest(
            device="cam-0419", model="detector", labels=(Label(id="a1", truth=3),)
        ),
        "freeze": Freeze(frozen=True, note="holiday"),
        "plan": _PLAN,
        "plan_fleet": _PLAN,
        "user_add": AddUser(name="ada@example.org", role=Role.APPROVER),
        "user_change": ChangeUser(role=Role.OPERATOR),
        "user_password": ChangePassword(password="correct horse battery"),  # noqa: S106 - an example
        "token_create": CreateToken(user="ada@example.org", valid_s=86_400, note="CI"),
    }
)
"""One for each endpoint whose body needs a field, and for some others."""
