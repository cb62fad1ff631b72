"""A report on serving at the hub: view, why, fleet and metrics, until the next check-in."""

import asyncio
from pathlib import Path

from msgspec.structs import replace

from edgefleet.protocol.device import CheckIn, ModelReport, digest
from edgefleet.protocol.serving_health import ServingEnds, ServingHealth
from edgefleet.protocol.version import PROTOCOL
from edgefleet.protocol.why import WaitCode
from edgefleet.security.signing import PublisherKey
from support.hub_inside import ManualClock, enrol_inside, hub_inside, publish_inside, report
from support.tiny_releases import tiny_release

RUNS = (ModelReport(model="digits", release="1"),)
ENDS = (ServingEnds(cause="SIGKILL", count=7, last_s=2.0),)
DOWN = ServingHealth(down_s=30.0, down=("digits",), ends=ENDS, by_model={"digits": 7})


def said(seq: int, serving: ServingHealth | None) -> CheckIn:
    return CheckIn(
        protocol=PROTOCOL, seq=seq, digest=digest(RUNS), models=RUNS, full=True, serving=serving
    )


def test_the_last_check_in_says_how_serving_is(tmp_path: Path) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with hub_inside(tmp_path / "data", clock) as hub:
            first, second = await enrol_inside(hub, 2)
            await publish_inside(hub, PublisherKey.generate(), tiny_release(tmp_path, "1"))
            await report(hub, first, said(1, DOWN))
            await report(hub, second, said(1, replace(DOWN, down_s=None, down=())))
            now = clock.now()

            view = hub.device(first.name).serving
            assert view is not None
            assert (view.status, view.down_since, view.short) == ("down", now - 30.0, "7x SIGKILL")
            other = hub.device(second.name).serving
            assert other is not None
            assert (other.status, other.since) == ("unstable", now - 2.0)

            why = hub.why_device(first.name)
            assert why.line.startswith("Serving is down: no release of digits is served.")
            assert (why.waits[0].code, why.waits[0].since) == (WaitCode.SERVING_DOWN, now - 30.0)
            assert hub.why_device(second.name).waits[0].code is WaitCode.SERVING_UNSTABLE

            assert (hub.fleet().serving_down, hub.fleet().serving_unstable) == (1, 1)
            lines = hub.metrics().splitlines()
            assert 'edgefleet_serving_devices{status="down"} 1' in lines
            assert 'edgefleet_serving_devices{status="unstable"} 1' in lines
            assert 'edgefleet_serving_ends{cause="SIGKILL"} 14' in lines

            await report(hub, first, said(2, None))
            assert hub.device(first.name).serving is None
            assert hub.fleet().serving_down == 0

    asyncio.run(main())
