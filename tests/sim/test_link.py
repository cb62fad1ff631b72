from edgefleet.sim.load.draws import Draws
from edgefleet.sim.load.link import LinkFacts, Outages, VirtualLink


def test_draws_repeat_by_seed_and_name_only() -> None:
    one, same = Draws(7, "a"), Draws(7, "a")
    assert [one.uniform() for _ in range(9)] == [same.uniform() for _ in range(9)]
    starts = {Draws(seed, name).bits() for seed in (7, 8) for name in ("a", "b")}
    assert len(starts) == 4
    assert len(one.token(13)) == 13


def test_draws_are_even() -> None:
    draws = Draws(1, "even")
    tenths = [0] * 10
    for _ in range(10_000):
        tenths[int(draws.uniform() * 10)] += 1
    # Chi-square over 9 degrees of freedom: below 27.9 in 999 of 1,000 streams; this one is fixed.
    assert sum((count - 1000) ** 2 / 1000 for count in tenths) < 27.9


def test_a_flapping_link_is_down_at_the_end_of_each_period() -> None:
    outages = Outages(up_s=8.0, down_s=2.0, shift_s=1.0)
    assert [outages.down(now) for now in (0.0, 6.9, 7.0, 8.9, 9.0, 17.5)] == [
        False, False, True, True, False, True,
    ]  # fmt: skip


def test_a_window_has_its_start_and_not_its_end() -> None:
    outages = Outages(windows=((5.0, 6.0),))
    assert [outages.down(now) for now in (4.9, 5.0, 6.0)] == [False, True, False]


def test_a_message_takes_its_time_or_never_comes() -> None:
    link = VirtualLink(LinkFacts(latency_s=0.1, bandwidth_bytes_s=1000.0), Draws(1, "x"))
    (at,) = link.arrivals(50.0, 500)
    assert 50.55 <= at <= 50.65
    dead = VirtualLink(LinkFacts(outages=Outages(windows=((0.0, 99.0),))), Draws(1, "x"))
    assert dead.arrivals(50.0, 500) == ()
    assert not dead.up(50.0)


def test_a_message_does_not_arrive_while_the_link_is_down() -> None:
    facts = LinkFacts(
        latency_s=0.0, bandwidth_bytes_s=100.0, outages=Outages(windows=((51.0, 60.0),))
    )
    assert VirtualLink(facts, Draws(1, "x")).arrivals(50.0, 500) == ()


def test_loss_and_doubling_are_shares_of_messages() -> None:
    link = VirtualLink(LinkFacts(loss=0.3, doubling=0.5), Draws(3, "x"))
    copies = [len(link.arrivals(0.0, 10)) for _ in range(4000)]
    assert 0.27 < copies.count(0) / 4000 < 0.33
    assert 0.32 < copies.count(2) / 4000 < 0.38
