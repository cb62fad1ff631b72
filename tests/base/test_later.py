"""A result is given once, to its receiver or to the coroutine that awaits it."""

import asyncio
from typing import Any

import pytest

from edgefleet.base.errors import DeviceError
from edgefleet.base.later import Later


@pytest.mark.parametrize("first", ["receiver", "result"])
def test_the_receiver_gets_the_first_result_once(first: str) -> None:
    later: Later[int] = Later()
    got: list[int | Exception] = []
    if first == "receiver":
        later.then(got.append)
    later.settle(1)
    if first == "result":
        later.then(got.append)
    later.settle(2)
    assert got == [1]


def test_a_coroutine_gets_the_result_or_the_error() -> None:
    async def play() -> tuple[int, str]:
        loop = asyncio.get_running_loop()
        good: Later[int] = Later()
        bad: Later[int] = Later()
        loop.call_soon(good.settle, 7)
        loop.call_soon(bad.settle, DeviceError("not_ready", "No model."))
        value = await good
        with pytest.raises(DeviceError) as caught:
            await bad
        return value, caught.value.code

    assert asyncio.run(play()) == (7, "not_ready")


def test_a_result_after_a_cancelled_wait_is_dropped() -> None:
    async def play() -> bool:
        later: Later[int] = Later()

        async def wait() -> int:
            return await later

        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        later.settle(1)
        return waiting.cancelled()

    assert asyncio.run(play())


def test_a_mapped_result_is_made_of_the_result_or_of_the_error() -> None:
    def doubled(result: int | Exception) -> int:
        if isinstance(result, DeviceError):
            return 0
        assert isinstance(result, int)
        return 100 // result

    got: list[int | Exception] = []
    for result in (50, DeviceError("not_ready", "No model."), 0):
        later: Later[int] = Later()
        later.mapped(doubled).then(got.append)
        later.settle(result)
    assert got[:2] == [2, 0]
    assert isinstance(got[2], ZeroDivisionError), "an error of the function is the result"


def test_a_receiver_that_fails_does_not_stop_the_one_who_settles() -> None:
    async def play() -> list[Any]:
        reported: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context["exception"])
        )

        def fail(_: object) -> None:
            raise ValueError("a defect")

        later: Later[int] = Later()
        later.then(fail)
        later.settle(1)
        return reported

    (error,) = asyncio.run(play())
    assert isinstance(error, ValueError)
