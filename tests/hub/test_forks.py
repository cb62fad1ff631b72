"""Computations in a fork: the same results as in the hub, and no harm to it."""

import asyncio
import os
from pathlib import Path

import pytest

from edgefleet.base.errors import EdgefleetError, OperatorError
from edgefleet.hub import forks as forks_module
from edgefleet.hub.forks import Forks
from edgefleet.hub.hub import Hub
from edgefleet.protocol.rollout import RolloutSpec, WaveSpec
from edgefleet.protocol.wire import encode
from edgefleet.security.signing import PublisherKey
from support.hub_inside import check_in, enrol_inside, hub_inside, publish_inside
from support.tiny_releases import tiny_release

SPEC = RolloutSpec(model="digits", release="1", waves=(WaveSpec(percent=50), WaveSpec(percent=100)))


@pytest.fixture(autouse=True)
def _every_fleet_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks_module, "FORK_DEVICES", 0)


def run(work: object) -> bytes:
    async def main() -> bytes:
        return await Forks(lambda: 1).run(work)  # type: ignore[arg-type] # some are no functions of bytes

    return asyncio.run(main())


def test_a_dry_run_in_a_fork_is_that_of_the_hub(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            await publish_inside(hub, PublisherKey.generate(), tiny_release(tmp_path, "1"))
            for site in ("lyon", "metz"):
                for device in await enrol_inside(hub, 3, prefix=site, site=site):
                    await check_in(hub, device, device.said())
            for selector in ("", "site=lyon", "site=nowhere", "site in (", "tier=x"):
                spec = RolloutSpec(model="digits", release="1", waves=SPEC.waves, selector=selector)
                here, there = dry_run(hub, spec), await forked(hub, spec)
                assert here == there
            assert len(dry_run(hub, SPEC)) > 100  # a plan, not a refusal only

    asyncio.run(main())


def dry_run(hub: Hub, spec: RolloutSpec) -> bytes:
    try:
        return encode(hub.plan_fleet(spec))
    except EdgefleetError as error:
        return f"{error.code} {error.field} {error.hint} {error}".encode()


async def forked(hub: Hub, spec: RolloutSpec) -> bytes:
    try:
        return await hub.forks.run(lambda: encode(hub.plan_fleet(spec)))
    except EdgefleetError as error:
        return f"{error.code} {error.field} {error.hint} {error}".encode()


def test_a_fork_is_another_process_without_the_descriptors_of_the_hub() -> None:
    with Path(__file__).open("rb") as file:
        handle = file.fileno()

        def seen() -> bytes:
            try:
                os.fstat(handle)
            except OSError:
                return str(os.getpid()).encode()
            return b"open"

        found = run(seen)
    assert found.isdigit()
    assert int(found) != os.getpid()


def test_a_long_result_arrives_whole() -> None:
    assert run(lambda: b"x" * (5 << 20)) == b"x" * (5 << 20)


def refuse() -> bytes:
    raise OperatorError("fleet_empty", "No device.", field="selector")


@pytest.mark.parametrize(
    ("work", "code"),
    [(refuse, "fleet_empty"), (lambda: os._exit(0), "internal"), (None, "internal")],
)
def test_the_end_of_a_fork_is_a_typed_error(work: object, code: str) -> None:
    with pytest.raises(EdgefleetError) as caught:
        run(work)
    assert caught.value.code == code


def test_computations_that_take_too_long_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks_module, "FORK_S", 0.2)
    monkeypatch.setattr(forks_module.signal, "alarm", lambda _seconds: 0)

    def endless() -> bytes:
        while True:
            pass

    with pytest.raises(EdgefleetError, match="longer than"):
        run(endless)


def test_computations_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks_module, "FORKS_WAITING", 2)

    async def main() -> list[object]:
        forks = Forks(lambda: 1)
        return await asyncio.gather(
            *(forks.run(lambda: b"x") for _ in range(4)), return_exceptions=True
        )

    found = asyncio.run(main())
    assert found[:2] == [b"x", b"x"]
    assert [error.code for error in found[2:] if isinstance(error, EdgefleetError)] == [
        "overloaded",
        "overloaded",
    ]
