"""The settings that bound the serving process."""

import resource
from dataclasses import asdict

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.serving import server
from edgefleet.serving.bounds import BOUNDS, Bound, Bounds, read_bounds


def test_without_settings_a_large_image_fits_and_no_client_has_a_quota() -> None:
    bounds = read_bounds({})
    assert bounds == Bounds()
    assert bounds.body_bytes > 4 * 3 * 1280 * 1280
    assert (bounds.of_peer, bounds.queue_of("digits"), bounds.client_rate) == (192, 32, 0)


def test_the_options_of_the_process_mean_the_same() -> None:
    texts = {"body_mib": "40", "bodies_mib": "80", "queue": "5,b=2,a=0", "client_rate": "3"}
    bounds = read_bounds(texts)
    given = bounds.arguments()
    assert given == [
        "--body-mib", "40", "--bodies-mib", "80", "--queue", "5,a=0,b=2", "--client-rate", "3",
    ]  # fmt: skip
    pairs = zip(given[::2], given[1::2], strict=True)
    assert read_bounds({k[2:].replace("-", "_"): v for k, v in pairs}) == bounds
    assert Bounds().arguments() == []


def test_a_model_has_a_queue_of_its_own_or_that_of_all() -> None:
    bounds = read_bounds({"queue": "16, wake=2"})
    assert (bounds.queue_of("wake"), bounds.queue_of("digits")) == (2, 16)
    assert read_bounds({"queue": "wake=2"}).queue_of("digits") == 32


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda one: one.key)
def test_a_number_outside_its_range_is_named_with_the_range(bound: Bound) -> None:
    for text in (str(bound.most + 1), str(bound.least - 1), "", "1.5", "²", "many", "9" * 5000):
        with pytest.raises(OperatorError) as wrong:
            read_bounds({bound.key: text}, "serve_")
        assert (wrong.value.code, wrong.value.field) == ("setting_invalid", f"serve_{bound.key}")
        assert f"from {bound.least} to {bound.most}" in wrong.value.message


@pytest.mark.parametrize(
    ("texts", "field"),
    [
        ({"body_mib": "65"}, "bodies_mib"),
        ({"connections": "10", "peer_connections": "11"}, "peer_connections"),
        ({"client_burst": "5"}, "client_burst"),
        ({"queue": "1,2"}, "queue"),
        ({"queue": "1,../x=2"}, "queue"),
        ({"queue": "1,a=x"}, "queue"),
    ],
)
def test_settings_that_contradict_each_other_are_named(texts: dict[str, str], field: str) -> None:
    with pytest.raises(OperatorError) as wrong:
        read_bounds(texts)
    assert wrong.value.field == field


def test_the_limits_of_both_listeners_are_the_settings() -> None:
    bounds = Bounds(
        body_mib=2, bodies_mib=3, connections=40, reserved_connections=5,
        head_s=3, write_s=4, idle_s=7,
    )  # fmt: skip
    limits = asdict(server.limits_of(bounds))
    assert (limits["body_bytes"], limits["buffered_bytes"]) == (2 << 20, 3 << 20)
    assert (limits["connections"], limits["peer_connections"]) == (40, 30)
    assert limits["reserved_connections"] == 5
    assert [limits[name] for name in ("head_s", "body_s", "write_s", "idle_s")] == [3, 30, 4, 7]


def test_connections_that_the_system_has_no_files_for_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allowed: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: allowed.append(pair))
    server.allow_files(Bounds(), protocols=2)
    assert allowed == [], "the default number fits the usual limit of 1024"
    server.allow_files(Bounds(connections=1500), protocols=2)
    ((soft, hard),) = allowed
    assert soft > 3000
    assert hard == 4096
    with pytest.raises(OperatorError, match="the system allows 4096") as wrong:
        server.allow_files(Bounds(connections=5000), protocols=1)
    assert wrong.value.field == "connections"
