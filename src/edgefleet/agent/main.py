"""The agent as a program: settings, the lock on its data folder, exit codes."""

import contextlib
import fcntl
import os
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final

from edgefleet.agent.settings import AgentSettings, as_toml, parse_call
from edgefleet.base.errors import DeviceError, EdgefleetError, OperatorError

FAILED: Final = 1
USAGE: Final = 2


def main(argv: Sequence[str]) -> int:
    """Do what a command says. ``run`` runs until SIGTERM or SIGINT.

    Returns exit code 2 for an invalid setting, and 1 for a failure or an agent that is not healthy.
    """
    try:
        call = parse_call(argv)
        if call.settings is None:
            from edgefleet.agent.status_text import show  # noqa: PLC0415 - not for ``run``

            lines, code = show(call.verb, call.data_dir, as_json=call.as_json)
            sys.stdout.write("".join(f"{line}\n" for line in lines))
            return code
        if call.verb == "config":
            sys.stdout.write(as_toml(call.settings))
        else:
            run(call.settings)
    except EdgefleetError as error:
        print(f"edgefleet agent: {error}", file=sys.stderr)  # noqa: T201 - the program's answer
        return USAGE if error.code == "setting_invalid" else FAILED
    return 0


def run(settings: AgentSettings) -> None:
    """Run the agent of one device. Raises EdgefleetError."""
    # Imported late, so that --help and a wrong option answer fast.
    from edgefleet.agent import log  # noqa: PLC0415 - see above
    from edgefleet.agent.agent_process import Device  # noqa: PLC0415 - see above
    from edgefleet.base.storage import FolderStorage  # noqa: PLC0415 - see above

    os.umask(0o077)  # only the agent's user may read its files, such as the credential
    log.start(as_json=settings.json_log)
    storage = FolderStorage(settings.data_dir)
    with _locked(settings.data_dir):
        Device(settings, storage).run()


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Lock the data folder itself: a lock needs no file that is written.

    Raises OperatorError ``data_dir_in_use``, DeviceError ``disk_failed``.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise DeviceError("disk_failed", f"{folder} cannot be read ({error.strerror}).") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise OperatorError(
            "data_dir_in_use", f"Another agent uses {folder}.", field="data_dir"
        ) from error
    finally:
        os.close(handle)
