"""A result that comes later on the same event loop."""

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")

Receiver = Callable[[T | Exception], None]


class Later(Generic[T]):
    """A result for one receiver, which is called at once and not in the next turn of the loop.

    A future of asyncio costs five times as much: it keeps a context, and a place in the queue of
    the loop. A coroutine can await a Later, and then pays this price.
    """

    __slots__ = ("_receive", "_result")

    def __init__(self) -> None:
        self._receive: Receiver[T] | None = None
        self._result: T | Exception | None = None

    def then(self, receive: Receiver[T]) -> None:
        """Call ``receive`` with the result, or with the error instead of it. Only once."""
        self._receive = receive
        if self._result is not None:
            receive(self._result)

    def settle(self, result: T | Exception) -> None:
        """Give the result, which is not None, or the error. Later ones are ignored.

        An exception of the receiver is reported to the event loop and not raised here.
        """
        if self._result is not None:
            return
        self._result = result
        if self._receive is None:
            return
        try:
            self._receive(result)
        except Exception as error:  # noqa: BLE001 - a defect of one receiver is not that of others
            asyncio.get_running_loop().call_exception_handler(
                {"message": "The receiver of a result failed", "exception": error}
            )

    def mapped(self, make: "Callable[[T | Exception], U]") -> "Later[U]":
        """A Later of ``make`` of the result, or of the error. An error of ``make`` is passed on."""
        mapped: Later[U] = Later()

        def receive(result: T | Exception) -> None:
            try:
                made: U | Exception = make(result)
            except Exception as error:  # noqa: BLE001 - it is the result
                made = error
            mapped.settle(made)

        self.then(receive)
        return mapped

    def __await__(self) -> Generator[Any, None, T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def receive(result: T | Exception) -> None:
            if future.done():  # cancelled: nobody waits any more
                return
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.then(receive)
        return (yield from future)
