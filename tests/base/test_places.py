"""The connections of a listener: a number, a share of each peer, and a reserve."""

from edgefleet.base.places import Place, Places, peer_of


def taken(places: Places, *peers: str) -> list[str]:
    return [places.acquire(peer).place.value for peer in peers]


def test_one_peer_cannot_take_all_connections() -> None:
    places = Places(4, of_peer=2)
    assert taken(places, "a", "a", "a", "b", "c", "d") == [
        "general", "general", "none", "general", "general", "none",
    ]  # fmt: skip
    assert places.refused == {"peer_connections": 1, "connections": 1}


def test_the_refusal_names_the_bound_and_its_value() -> None:
    places = Places(1, of_peer=1)
    places.acquire("a")
    all_taken = places.acquire("b").refusal
    assert all_taken is not None
    assert (all_taken.reason, all_taken.message) == (
        "connections", "All 1 connections of the server are in use.",
    )  # fmt: skip
    places = Places(2, of_peer=1)
    places.acquire("a")
    own_share = places.acquire("a").refusal
    assert own_share is not None
    assert own_share.reason == "peer_connections"
    assert "a has 1 connections" in own_share.message


def test_the_reserve_is_beyond_the_connections_and_no_peer_takes_it_whole() -> None:
    places = Places(1, reserved=4)
    assert taken(places, "a", "a", "a", "a", "b", "b", "b") == [
        "general", "reserved", "reserved", "none", "reserved", "reserved", "none",
    ]  # fmt: skip


def test_a_closed_connection_gives_its_place_back() -> None:
    places = Places(1, of_peer=1, reserved=1)
    assert taken(places, "a", "b", "b") == ["general", "reserved", "none"]
    places.free("b", Place.NONE)
    places.free("b", Place.RESERVED)
    assert taken(places, "b") == ["reserved"]
    places.free("a", Place.GENERAL)
    assert taken(places, "c") == ["general"]


def test_a_peer_without_an_address_has_no_share() -> None:
    places = Places(3, of_peer=1)
    assert taken(places, "", "", "") == ["general"] * 3


def test_the_peer_is_the_address_without_its_port() -> None:
    assert peer_of(("10.0.0.1", 4711)) == "10.0.0.1"
    assert peer_of(("fe80::1", 4711, 0, 2)) == "fe80::1"
    assert peer_of("") == peer_of(b"\0name") == peer_of(None) == ""
