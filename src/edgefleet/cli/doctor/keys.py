"""The signing key: exists, private, and accepted by the hub."""

import stat

from edgefleet.base.errors import EdgefleetError
from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State
from edgefleet.cli.key import default_key, load_key


def check(context: Context) -> Finding:
    path = default_key()
    if not path.exists():
        return Finding(
            check="keys",
            state=State.WARNING,
            text=f"There is no signing key at {path}.",
            fix="edgefleet key new (only on machines that publish releases)",
        )
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Finding(
            check="keys",
            state=State.BAD,
            text=f"Other users can read {path}.",
            fix=f"chmod go= {path}",
        )
    try:
        public = load_key(path).public
    except EdgefleetError as error:
        return Finding(check="keys", state=State.BAD, text=error.message, fix=error.hint)
    if context.hub is None:
        return Finding(check="keys", state=State.OK, text=f"Signing key {public.keyid[:16]}.")
    trusted = {key.public_key for key in context.hub.trusted().keys}
    if public.text not in trusted:
        return Finding(
            check="keys",
            state=State.WARNING,
            text=f"The hub does not accept releases of key {public.keyid[:16]}.",
            fix="edgefleet model publish FOLDER --trust",
        )
    text = f"Signing key {public.keyid[:16]}, one of {len(trusted)} keys that the hub accepts."
    return Finding(check="keys", state=State.OK, text=text)
