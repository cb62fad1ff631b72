"""A realistic fleet: several profiles, slow links, little-used devices and offline devices."""

from dataclasses import dataclass
from math import inf
from typing import Final

from edgefleet import __version__
from edgefleet.agent.state import Pace
from edgefleet.protocol.device import Facts
from edgefleet.sim.load.device import DeviceFacts
from edgefleet.sim.load.draws import Draws
from edgefleet.sim.load.link import LinkFacts, Outages

_PROFILES: Final = (
    # profile, arch, memory in MiB, share
    ("generic_x86", "x86_64", 4096, 0.25),
    ("jetson_nano", "aarch64", 3072, 0.25),
    ("raspberry_pi", "aarch64", 1024, 0.30),
    ("coral_tpu", "aarch64", 512, 0.20),
)
_REGIONS: Final = ("north", "east", "south", "west")
_SITES: Final = 24


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of the fleet, and the requests per second of a busy and of a quiet device.

    A quiet device receives too few requests during a trial to judge a release by its answers, so
    it confirms any release that runs. Only the hub can judge, from the sum of many devices.
    """

    gone: float = 0.04  # offline for good
    away: float = 0.04  # offline at first; they return almost together, after ``away_s``
    flapping: float = 0.05
    slow: float = 0.10
    quiet: float = 0.15
    away_s: tuple[float, float] = (40.0, 44.0)
    busy_requests_s: tuple[float, float] = (14.0, 20.0)
    quiet_requests_s: tuple[float, float] = (0.5, 1.5)


def population(
    count: int, *, seed: int, start: float, interval_s: float, prefix: str = "sim", mix: Mix = Mix()
) -> tuple[DeviceFacts, ...]:
    """The facts of ``count`` devices, which start at virtual time ``start``.

    A device's facts depend only on the seed and its name: a larger fleet contains the smaller one.
    """
    digits = max(4, len(str(count)))
    names = [f"{prefix}-{number:0{digits}}" for number in range(1, count + 1)]
    return tuple(_device(name, seed, start, interval_s, mix) for name in names)


def _device(name: str, seed: int, start: float, interval_s: float, mix: Mix) -> DeviceFacts:
    draws = Draws(seed, f"facts/{name}")
    profile, arch, memory_mib = _profile(draws)
    site = int(draws.between(0, _SITES))
    busy = not draws.happens(mix.quiet)
    return DeviceFacts(
        name=name,
        facts=Facts(
            profile=profile,
            agent_version=__version__,
            runtimes=("onnx",),
            arch=arch,
            memory_mib=memory_mib,
        ),
        labels={"site": f"site-{site + 1:02}", "region": _REGIONS[site % len(_REGIONS)]},
        link=_link(draws, start, mix),
        requests_s=draws.between(*(mix.busy_requests_s if busy else mix.quiet_requests_s)),
        # One probe of the serving process per check-in is enough, except during a trial.
        pace=Pace(probe_idle_s=interval_s, probe_trial_s=min(0.5, interval_s)),
        answer_timeout_s=2 * interval_s,
    )


def _profile(draws: Draws) -> tuple[str, str, int]:
    at = draws.uniform()
    for profile, arch, memory_mib, share in _PROFILES:
        if at < share:
            return profile, arch, memory_mib
        at -= share
    return _PROFILES[-1][:3]


def _link(draws: Draws, start: float, mix: Mix) -> LinkFacts:
    outages = Outages()
    at = draws.uniform()
    if at < mix.gone:
        outages = Outages(windows=((start, inf),))
    elif at < mix.gone + mix.away:
        outages = Outages(windows=((start, start + draws.between(*mix.away_s)),))
    elif at < mix.gone + mix.away + mix.flapping:
        up_s, down_s = draws.between(10.0, 20.0), draws.between(1.0, 2.0)
        outages = Outages(up_s=up_s, down_s=down_s, shift_s=draws.between(0.0, up_s + down_s))
    if draws.happens(mix.slow):
        return LinkFacts(
            latency_s=draws.between(0.1, 0.25),
            bandwidth_bytes_s=draws.between(80e3, 160e3),
            outages=outages,
        )
    return LinkFacts(
        latency_s=draws.between(0.01, 0.06),
        bandwidth_bytes_s=draws.between(0.5e6, 4e6),
        outages=outages,
    )
