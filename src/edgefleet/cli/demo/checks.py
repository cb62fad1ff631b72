"""The demo judges itself: what was seen, against what must hold. No clock, no network."""

from collections import Counter
from typing import Final

from edgefleet.cli.demo.observations import ClientSeen, StorySeen
from edgefleet.cli.demo.story import MODEL, Chapter
from edgefleet.protocol.rollout import RolloutView, Status, WaveView
from edgefleet.protocol.wire import Wire

CAUGHT_BY_WAVE: Final = 2  # a bad release must not come further than this, nor to the last one
ARRIVING: Final = 0.1  # share of the online devices that may still be on their first release


class Check(Wire, frozen=True, kw_only=True):
    """One thing that must hold."""

    name: str
    holds: bool
    text: str


def judge(seen: StorySeen) -> tuple[Check, ...]:
    """Everything that the demo promises."""
    verdicts = tuple(_verdict(chapter, view) for chapter, view in _pairs(seen))
    return (
        *verdicts,
        _exposure(seen),
        _caught_early(seen),
        _nobody_on_bad(seen),
        _back_on_good(seen),
        _refused_unseen(seen),
        _whole_fleet(seen),
        _no_failures(seen),
        _better_answers(seen),
    )


def opened(view: RolloutView) -> tuple[WaveView, ...]:
    """The waves that were opened; each has a cut."""
    return tuple(wave for wave in view.waves if wave.cut is not None)


def exposed_to_bad(seen: StorySeen) -> int:
    """Devices that ever ran a release which was not meant to stay."""
    return sum(_exposed(seen, chapter, view) for chapter, view in _bad(seen) if view)


def accuracy(clients: tuple[ClientSeen, ...]) -> dict[str, float]:
    """Share of right answers that real agents gave, by the release that gave them."""
    answered, right = _summed(clients)
    return {release: right[release] / count for release, count in sorted(answered.items())}


def _pairs(seen: StorySeen) -> tuple[tuple[Chapter, RolloutView | None], ...]:
    return tuple(zip(seen.chapters, seen.rollouts, strict=True))


def _bad(seen: StorySeen) -> tuple[tuple[Chapter, RolloutView | None], ...]:
    return tuple(pair for pair in _pairs(seen) if pair[0].ends is not Status.COMPLETED)


def _exposed(seen: StorySeen, chapter: Chapter, view: RolloutView) -> int:
    """By the hub's count or by the devices' own, whichever is larger."""
    users = sum(chapter.release in client.answered for client in seen.clients)
    return max(view.exposed, seen.fleet.ran.get(chapter.release, 0) + users)


def _good_release(seen: StorySeen) -> str:
    """The last release that was meant to stay."""
    return [chapter.release for chapter in seen.chapters if chapter.ends is Status.COMPLETED][-1]


def _verdict(chapter: Chapter, view: RolloutView | None) -> Check:
    name = f"release_{chapter.release}_{chapter.ends}"
    if view is None:
        return Check(name=name, holds=False, text=f"Release {chapter.release} was not reached.")
    holds = view.status is chapter.ends and view.reason in chapter.reasons
    text = f"Release {chapter.release} is {view.status} ({view.reason}): {view.text}"
    return Check(name=name, holds=holds, text=text)


def _exposure(seen: StorySeen) -> Check:
    """No bad release may run on more devices than the wave that was open allows."""
    told: list[str] = []
    holds = True
    for chapter, view in _bad(seen):
        waves = opened(view) if view else ()
        if view is None or not waves:
            holds = False
            continue
        cut, exposed = waves[-1].cut or 0, _exposed(seen, chapter, view)
        holds = holds and exposed <= cut
        told.append(f"release {chapter.release} ran on {exposed}, the open wave held {cut}")
    return Check(name="exposure_within_cut", holds=holds, text=f"{'; '.join(told) or 'Unknown'}.")


def _caught_early(seen: StorySeen) -> Check:
    bad = [view for _, view in _bad(seen) if view]
    waves = max((len(opened(view)) for view in bad), default=0)
    # Of a very small fleet the first wave is everybody.
    early = all(len(opened(view)) <= _early_waves(view) for view in bad)
    return Check(
        name="caught_early",
        holds=waves > 0 and early,
        text=f"The bad release that came furthest came to wave {waves}.",
    )


def _early_waves(view: RolloutView) -> int:
    return max(1, min(CAUGHT_BY_WAVE, len(view.waves) - 1))


def _nobody_on_bad(seen: StorySeen) -> Check:
    """By the hub's list, which has devices offline too, and by the devices and users themselves."""
    on_bad = {
        chapter.release: (
            seen.listed.get(chapter.release, 0),
            seen.fleet.on_release.get(chapter.release, 0),
            sum(client.last == chapter.release for client in seen.clients),
        )
        for chapter, _ in _bad(seen)
    }
    told = "; ".join(
        f"release {release}: {hub} at the hub, {own} simulated, {real} real"
        for release, (hub, own, real) in on_bad.items()
    )
    holds = not any(map(any, on_bad.values()))
    return Check(name="nobody_on_bad", holds=holds, text=f"Still on {told}.")


def _back_on_good(seen: StorySeen) -> Check:
    good = _good_release(seen)
    took = back = 0
    for chapter, _ in _bad(seen):
        now = seen.fleet.ran_now.get(chapter.release, {})
        users = [client for client in seen.clients if chapter.release in client.answered]
        took += sum(now.values()) + len(users)
        back += now.get(good, 0) + sum(client.last == good for client in users)
    return Check(
        name="back_on_good",
        holds=took == back,
        text=f"{back} of the {took} devices that took a bad release are back on {good}.",
    )


def _refused_unseen(seen: StorySeen) -> Check:
    """What devices refuse must never have answered anybody."""
    refused = [(chapter, view) for chapter, view in _bad(seen) if chapter.ends is Status.REFUSED]
    ran = sum(_exposed(seen, chapter, view) for chapter, view in refused if view)
    return Check(
        name="refused_before_activation",
        holds=ran == 0 and all(view for _, view in refused),
        text=f"{ran} devices ran a release that devices must refuse.",
    )


def _whole_fleet(seen: StorySeen) -> Check:
    good = _good_release(seen)
    online = seen.hub.on_release.get(MODEL, {})
    arriving = seen.hub.online - sum(online.values())  # were away all the time, and are back
    holds = (
        seen.hub.total == seen.expected_devices
        and set(online) == {good}
        and arriving <= ARRIVING * seen.hub.online
    )
    told = [f"{count} on {release}" for release, count in sorted(online.items())]
    told += [f"{arriving} just back and on none yet"] if arriving else []
    return Check(
        name="fleet_on_good",
        holds=holds,
        text=f"{seen.hub.total} devices, {seen.hub.online} online: {', '.join(told)}.",
    )


def _no_failures(seen: StorySeen) -> Check:
    requests = sum(client.requests for client in seen.clients)
    failed = sum(client.failed for client in seen.clients)
    first = next((client.first_failure for client in seen.clients if client.first_failure), "")
    return Check(
        name="no_request_failed",
        holds=failed == 0 and bool(seen.clients) and all(c.requests for c in seen.clients),
        text=f"{failed} of {requests} requests failed{f', first: {first}' if first else ''}.",
    )


def _better_answers(seen: StorySeen) -> Check:
    """Users of real agents got answers from each good release, and better ones from the newer."""
    found = accuracy(seen.clients)
    good = [chapter.release for chapter in seen.chapters if chapter.ends is Status.COMPLETED]
    shares = [found.get(release) for release in good]
    told = ", ".join(f"{share:.3f} by {release}" for release, share in found.items())
    known = [share for share in shares if share is not None]
    return Check(
        name="better_answers",
        holds=len(known) == len(good) and known == sorted(known),
        text=f"Right answers: {told or 'none'}.",
    )


def _summed(clients: tuple[ClientSeen, ...]) -> tuple[Counter[str], Counter[str]]:
    answered: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for client in clients:
        answered.update(client.answered)
        right.update(client.right)
    return answered, right
