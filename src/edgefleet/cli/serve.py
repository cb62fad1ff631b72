"""``edgefleet serve``: the hub and its page in one process. Only this module joins the two."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgefleet.cli.command import data_dir_option, verb
from edgefleet.cli.connect import data_dir
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.values import DURATION
from edgefleet.protocol.wire import Wire

if TYPE_CHECKING:
    from edgefleet.hub.datadir import Reachable
    from edgefleet.hub.hub import Hub


class Serving(Wire, frozen=True, kw_only=True):
    """Addresses and data folder of the hub."""

    url: str
    checkin_url: str
    data_dir: str


@verb(
    "serve",
    hub=False,
    exits=(Exit.FAILED,),
    examples=(
        "edgefleet serve",
        "edgefleet serve --data-dir ./hub --listen 0.0.0.0:8400 --checkin-listen 0.0.0.0:8401",
        "edgefleet serve --listen 127.0.0.1:0 --checkin-listen 127.0.0.1:0 --interval 5s",
        "edgefleet serve --gate our_gates.py:no_second_crash",
    ),
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8400",
    help="Address of the page, the operator API and enrolment; port 0 chooses a free port.",
)
@click.option(
    "--checkin-listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8401",
    help="Address for check-ins.",
)
@click.option(
    "--checkin-url",
    metavar="URL",
    help="Check-in URL that devices get instead, if a proxy is in front of --checkin-listen.",
)
@click.option(
    "--interval", type=DURATION, default="60s", metavar="DURATION", help="Time between check-ins."
)
@click.option(
    "--tick",
    type=DURATION,
    default="1s",
    metavar="DURATION",
    help="Time between evaluations of the gates.",
)
@click.option(
    "--max-artifact-mib",
    type=click.IntRange(1),
    default=32_768,
    metavar="MIB",
    help="Largest accepted artifact.",
)
@click.option(
    "--operator-rate",
    type=click.FloatRange(0, min_open=True),
    default=200.0,
    metavar="NUMBER",
    help="Requests a second of each user to the operator API.",
)
@click.option(
    "--allow-local-hooks",
    is_flag=True,
    help="Web hooks may go to loopback and link-local addresses.",
)
@click.option(
    "--gate",
    metavar="MODULE:NAME",
    help="Custom gate, package.module:name or path/to/file.py:name (docs/own-gate.md).",
)
@pass_invocation
def serve(
    invocation: Invocation,
    /,
    *,
    listen: str,
    checkin_listen: str,
    checkin_url: str | None,
    interval: float,
    tick: float,
    max_artifact_mib: int,
    operator_rate: float,
    allow_local_hooks: bool,
    gate: str | None,
) -> None:
    """Run the hub and its page until Ctrl-C.

    All data is in the data folder, which one hub locks at a time. The hub may be killed at any
    moment and started again. The first start creates the operator token there. By default the hub
    listens on this machine only; with another --listen, put a TLS proxy in front of it.

    When the hub is ready, it prints the page's address and the next commands. On a terminal, the
    address is a link that logs in once; `edgefleet hub login` prints another one.
    """
    import uvloop

    from edgefleet.cli.custom_gate import load_gate
    from edgefleet.hub.server import serve as serve_hub
    from edgefleet.hub.settings import HubSettings
    from edgefleet.rollout.evidence.gate import judge
    from edgefleet.web.routes import routes_for

    folder = data_dir(invocation)
    settings = HubSettings(
        data_dir=folder,
        listen=listen,
        checkin_listen=checkin_listen,
        checkin_url=checkin_url,
        interval_s=interval,
        tick_s=tick,
        max_artifact_bytes=max_artifact_mib << 20,
        operator_requests_per_s=operator_rate,
        allow_local_hooks=allow_local_hooks,
        gate=judge if gate is None else load_gate(gate),
    )
    uvloop.run(
        serve_hub(
            settings,
            routes_for=lambda hub: routes_for(
                hub, clock=hub.clock
            ),  # the page computes ages from it
            on_ready=partial(_ready, invocation, folder),
        )
    )


def _ready(invocation: Invocation, folder: Path, hub: Hub, found: Reachable) -> None:
    for text in hub.snapshots.damage:
        invocation.screen.note(text)
    serving = Serving(url=found.url, checkin_url=found.checkin_url, data_dir=str(folder.absolute()))
    option = "" if invocation.data_dir is None else f" --data-dir {folder}"
    invocation.screen.answer(
        serving,
        [
            f"The hub is ready: {found.url}",
            *_page_lines(hub, found.url, option),
            f"  check-ins  {found.checkin_url}",
            f"  data       {folder.absolute()}",
            "",
            "Next, in another terminal:",
            f"  edgefleet device claim{option}",
            "  edgefleet key new",
            f"  edgefleet model publish FOLDER --trust{option}",
            f"  edgefleet doctor{option}",
        ],
    )


def _page_lines(hub: Hub, url: str, option: str) -> list[str]:
    """The page, with a link that logs in once. Not into a file, such as a log."""
    if not sys.stdout.isatty():
        return [f"  page       {url}", f"             log in with: edgefleet hub login{option}"]
    from edgefleet.security.principals import OPERATOR_TOKEN

    link = hub.logins.link(OPERATOR_TOKEN)
    return [
        f"  page       {url}{link.path}",
        f"             logs in once, for 15 minutes; another link: edgefleet hub login{option}",
    ]


serve.params.insert(0, data_dir_option())
