"""The key of a device: a secret that it makes before its first enrolment and keeps.

The hub notes its digest with the claim that enrols the device. If the answer of the hub is lost,
the same claim with the same key gives the device its credential again. To any other key the claim
is used. The key is stored before the first request, so that it outlives a power loss.
"""

from typing import Final

from edgefleet.agent.log import LOGGER
from edgefleet.agent.own_files import OwnFile
from edgefleet.base.entropy import Entropy
from edgefleet.base.errors import DeviceError
from edgefleet.base.storage import Storage

KEY: Final = "device.key"
_KEY_BYTES: Final = 32


def device_key(storage: Storage, entropy: Entropy) -> str:
    """The stored key, of either copy, or a new one. A disk that fails keeps no new key."""
    file = OwnFile(storage, KEY)
    for content, is_sound in file.contents():
        if is_sound:
            file.repair()
            return content.decode()
    key = entropy.token(_KEY_BYTES).hex()
    try:
        file.write(key.encode())
    except DeviceError as error:  # the key is used until the agent ends
        LOGGER.error("The key of the device is not stored: %s", error)
    return key
