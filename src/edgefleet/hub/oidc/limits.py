"""Bounds of logins with an OpenID Connect provider."""

from typing import Final

# Answers of the provider.
FETCH_S: Final = 10.0  # a login waits so long for each answer
FETCH_PAUSE_S: Final = 5.0  # without a byte
FETCH_BYTES: Final = 256 << 10
FETCHES_AT_ONCE: Final = 8
FAILURE_KEPT_S: Final = 5.0  # after a failed fetch of addresses or keys, before the next one
ADDRESSES_KEPT_S: Final = 3600.0  # the discovery document
KEYS_KEPT_S: Final = 3600.0
KEYS_AGAIN_S: Final = 60.0  # between two fetches because of an unknown key
KEYS: Final = 100
RSA_BITS: Final = range(2048, 8193)

# A login.
LOGIN_S: Final = 600.0  # from the button to the answer of the provider
LOGINS_USED: Final = 20_000  # of the last LOGIN_S
NEXT_CHARS: Final = 512
CODE_CHARS: Final = 4096
TOKEN_BYTES: Final = 32 << 10
CLOCK_SKEW_S: Final = 60.0
SUBJECT_CHARS: Final = 255  # as in the standard
GROUPS: Final = 2_000  # of one user

# Settings.
ROLES: Final = 200
GROUP_CHARS: Final = 256
SECRET_CHARS: Final = 1024
