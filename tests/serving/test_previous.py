"""The release before a confirmed one stays loaded for a while, so that a rollback needs no load."""

import asyncio
from pathlib import Path

import pytest

from edgefleet.base.cgroup import MemoryRoom
from edgefleet.protocol.serving import Apply, ServedModel, ServedRelease
from edgefleet.serving import previous
from edgefleet.serving.active_release import Release
from edgefleet.serving.model_host import ModelHost
from support.tiny_models import classifier


async def serve(
    host: ModelHost, confirmed: ServedRelease, trial: ServedRelease | None = None
) -> Release:
    """Serve this set. Returns the release that requests go to."""
    wanted = ServedModel(model="digits", confirmed=confirmed, trial=trial)
    await host.apply(Apply(generation=1, models=(wanted,)))
    return host.routes["digits"]


def releases(folder: Path) -> tuple[ServedRelease, ServedRelease]:
    old, new = (classifier(folder / f"{seed}.onnx", seed=seed) for seed in (1, 2))
    return old.served("1"), new.served("2")


def test_a_rollback_after_the_confirmation_loads_nothing(tmp_path: Path) -> None:
    old, new = releases(tmp_path)

    async def main() -> None:
        host = ModelHost()
        first = await serve(host, old)
        await serve(host, old, new)
        second = await serve(host, new)
        assert second.release == "2"
        assert host.previous.of == {"digits": first}
        loads, first.stats.requests = host.activations, 7
        assert await serve(host, old) is first, "the loaded release serves again"
        assert host.activations == loads
        assert first.stats.requests == 0, "an agent adds what it has not seen of this process"
        assert host.previous.of == {}, "the release that was rolled back is freed"
        await host.close()

    asyncio.run(main())


@pytest.mark.long
def test_it_is_freed_after_its_time_or_for_another_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = releases(tmp_path)
    third = classifier(tmp_path / "3.onnx", seed=3).served("3")

    async def main() -> None:
        host = ModelHost()
        await serve(host, old)
        await serve(host, old, new)
        await serve(host, new)
        assert "digits" in host.previous.of
        await serve(host, new, third)
        assert host.previous.of == {}, "for the candidate"
        monkeypatch.setattr(previous, "PREVIOUS_S", 0.0)
        await serve(host, third)
        for _ in range(1000):
            if not host.previous.of:
                break
            await asyncio.sleep(0.01)
        assert host.previous.of == {}, "after its time"
        await host.close()

    asyncio.run(main())


def test_without_room_it_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = releases(tmp_path)
    full = MemoryRoom(limit_bytes=100 << 20, used_bytes=99 << 20, place="pod")

    async def main() -> None:
        host = ModelHost()
        first = await serve(host, old)
        await serve(host, old, new)
        monkeypatch.setattr(previous, "memory_room", lambda: full)
        await serve(host, new)
        assert host.previous.of == {}
        assert first not in host.routes.values()
        await host.close()

    asyncio.run(main())
