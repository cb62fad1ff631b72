"""``python -m edgefleet.hub``: a hub without the web page. ``edgefleet serve`` has both."""

import argparse
import sys
from pathlib import Path

import uvloop

from edgefleet.base.errors import EdgefleetError
from edgefleet.hub.datadir import Reachable
from edgefleet.hub.hub import Hub
from edgefleet.hub.server import serve
from edgefleet.hub.settings import HubSettings


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code: 2 if the hub cannot start."""
    given = argparse.ArgumentParser(prog="python -m edgefleet.hub", description=__doc__)
    given.add_argument("--data-dir", type=Path, required=True)
    for name in ("--listen", "--checkin-listen"):
        given.add_argument(name, metavar="HOST:PORT", default=argparse.SUPPRESS)
    for name in ("--interval-s", "--tick-s", "--offline-after-s"):
        given.add_argument(name, type=float, metavar="SECONDS", default=argparse.SUPPRESS)
    given.add_argument("--max-artifact-bytes", type=int, default=argparse.SUPPRESS)
    given.add_argument("--operator-requests-per-s", type=float, default=argparse.SUPPRESS)
    given.add_argument("--allow-local-hooks", action="store_true", default=argparse.SUPPRESS)
    options = given.parse_args()
    try:
        uvloop.run(serve(HubSettings(**vars(options)), on_ready=_warn))
    except EdgefleetError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _warn(hub: Hub, _reachable: Reachable) -> None:
    for text in hub.snapshots.damage:
        sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
