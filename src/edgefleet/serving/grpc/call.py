"""One gRPC call: the state from its head to its trailers."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from edgefleet.base.errors import EdgefleetError, Overloaded
from edgefleet.http2.header_block import encode_fields
from edgefleet.http2.server import ServerStream
from edgefleet.serving.grpc.framing import (
    ENCODINGS,
    LARGE_BYTES,
    PREFIX_BYTES,
    Message,
    MessageReader,
    frame,
    inflate,
    timeout_s,
)
from edgefleet.serving.grpc.status import (
    OK_TRAILERS,
    CallFailed,
    Code,
    failure,
    trailers,
)

QUEUED_MESSAGES: Final = 16  # of one stream, before its client must wait
WAITING_BYTES: Final = 1 << 20  # the same for their size
GRACE_S: Final = 0.02  # after the deadline, until a call that has not ended is ended
UNSENT_BYTES: Final = 4 << 20  # of one stream of replies, before its next message is handled

_OK: Final = [(b":status", b"200"), (b"content-type", b"application/grpc")]
_SUPPORTED: Final = frozenset({b"identity", b"gzip", b"deflate"})


Metadata = tuple[tuple[bytes, bytes], ...]


class Asked(Protocol):
    """The part that a method may know of its call."""

    @property
    def deadline(self) -> float | None:
        """The time of the loop at which the client no longer waits. None without a limit."""
        ...

    @property
    def peer(self) -> str:
        """The address of the client."""
        ...

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """The metadata of the client."""
        ...

    def note(self, metadata: Metadata) -> None:
        """Send this metadata with the answer, if it is the only one of the call."""
        ...


Method = Callable[[memoryview, Asked], bytes | Awaitable[bytes]]
"""Answers one message. Raises EdgefleetError or CallFailed, at once or when awaited."""


class Server(Protocol):
    """The part of a service that its calls use."""

    loop: asyncio.AbstractEventLoop
    limit_bytes: int
    head_fields: tuple[tuple[bytes, bytes], ...]

    def account(self, count: int) -> None:
        """Count bytes of messages in memory, or fewer. Raises DeviceError ``overloaded``."""
        ...

    def room(self, size: int, data: memoryview, /) -> memoryview | None:
        """See ``framing.Room``."""
        ...


@lru_cache(maxsize=64)
def _head(encoding: bytes, more: tuple[tuple[bytes, bytes], ...]) -> bytes:
    named = [] if encoding == b"identity" else [(b"grpc-encoding", encoding)]
    return encode_fields([*_OK, *named, *more])


class Call:
    """The parts of all calls: the deadline, the messages, and the end.

    ``deadline`` and ``encoding`` are those of the client. A call ends once: what comes later is
    not sent.
    """

    def __init__(self, server: Server, stream: ServerStream) -> None:
        self.deadline: float | None = None
        self.done = False
        self._server = server
        self._stream = stream
        self._reader = MessageReader(server.limit_bytes, server.room)
        self._encoding = stream.headers.get(b"grpc-encoding", b"identity")
        self._noted: Metadata = ()
        self._task: asyncio.Future[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._taken_bytes = 0
        given = stream.headers.get(b"grpc-timeout")
        if given is not None:
            self.deadline = server.loop.time() + timeout_s(given)
        if self._encoding not in _SUPPORTED:
            raise CallFailed(
                Code.UNIMPLEMENTED,
                f"grpc-encoding {self._encoding.decode('ascii', 'replace')[:64]} is not supported; "
                f"use one of {ENCODINGS.decode()}.",
            )

    @property
    def peer(self) -> str:
        return self._stream.peer

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        return self._stream.headers

    def note(self, metadata: Metadata) -> None:
        """Ignored: a stream of answers has one head."""

    # Called by the connection.

    def received(self, data: memoryview) -> None:
        if self.done:
            return
        try:
            self.account(len(data))
            self.accept(self._reader.feed(data), len(data))
        except CallFailed as end:
            self.fail(end)
        except EdgefleetError as error:
            self.fail(failure(error))

    def aborted(self, code: int) -> bool:
        """The client has gone: stop the work, if it can be stopped."""
        del code
        self._finish()
        task, self._task = self._task, None
        if task is None or task.done():
            return False
        task.add_done_callback(lambda _: self._stream.release())
        task.cancel()
        return True

    def sent(self) -> None:
        """The replies so far were sent."""

    # Called by subclasses.

    def accept(self, messages: list[Message], size: int) -> None:
        """Messages have come, with ``size`` bytes of the body."""
        raise NotImplementedError

    def account(self, count: int) -> None:
        """Count ``count`` bytes of the body until the end of the call."""
        self._server.account(count)
        self._taken_bytes += count

    def plain(self, message: Message) -> memoryview:
        """The message without compression."""
        if not message.compressed:
            return message.data
        data = inflate(message, self._encoding, self._server.limit_bytes)
        self.account(len(data))
        return data

    def framed(self, data: bytes) -> bytes:
        return frame(data, self._encoding)

    def start(self, coming: Awaitable[bytes]) -> None:
        """Wait for the answer of a method, until the deadline."""
        self._task = asyncio.ensure_future(coming, loop=self._server.loop)
        self._task.add_done_callback(self._awaited)
        self.watch_deadline()

    def answered(self, data: bytes) -> None:
        """The awaited answer of a method has come."""
        raise NotImplementedError

    def watch_deadline(self) -> None:
        if self.deadline is not None and self._timer is None:
            # An inference ends its own requests at the deadline, and counts them: this is later.
            self._timer = self._server.loop.call_at(self.deadline + GRACE_S, self._expired)

    def check_deadline(self) -> None:
        if self.deadline is not None and self._server.loop.time() >= self.deadline:
            raise _expired()

    def fail(self, end: CallFailed) -> None:
        """End the call with a status other than OK."""
        if self.done:
            return
        self._finish()
        begun = self.has_begun()
        fields = [*_accepted(end), *trailers(end), *self._noted]
        block = encode_fields([*([] if begun else _OK), *fields])
        if begun:
            self._stream.send(b"", ends=True, trailers=block)
        else:
            self._stream.respond(block, ends=True)

    def fail_with(self, error: BaseException) -> None:
        """End the call with the status of any error."""
        if isinstance(error, EdgefleetError):
            error = failure(error)
        elif isinstance(error, asyncio.CancelledError):
            error = failure(Overloaded("stopping", "The server is stopping."))
        elif not isinstance(error, CallFailed):
            self._server.loop.call_exception_handler(
                {"message": "A method failed", "exception": error}
            )
            error = CallFailed(Code.INTERNAL, "The request could not be answered.")
        self.fail(error)

    def _expired(self) -> None:
        task, self._task = self._task, None
        self.fail(_expired())
        if task is not None:
            task.cancel()

    def has_begun(self) -> bool:
        """Whether the head of the reply was sent."""
        return False

    def _awaited(self, task: "asyncio.Future[bytes]") -> None:
        self._task = None
        if self.done:
            if not task.cancelled():
                task.exception()  # asyncio logs an exception that nothing reads
            return
        if task.cancelled():
            self.fail_with(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.fail_with(error)
        else:
            self.answered(task.result())

    def _finish(self) -> None:
        self.done = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        taken, self._taken_bytes = self._taken_bytes, 0
        self._server.account(-taken)


class UnaryCall(Call):
    """A call with one message and one answer."""

    def __init__(self, server: Server, stream: ServerStream, method: Method) -> None:
        super().__init__(server, stream)
        self._method = method
        self._message: Message | None = None
        self._fresh = True

    def note(self, metadata: Metadata) -> None:
        self._noted = metadata

    def received(self, data: memoryview) -> None:
        size = len(data)
        if self._fresh and PREFIX_BYTES <= size < LARGE_BYTES:
            head = bytes(data[:PREFIX_BYTES])
            if head[0] == 0 and int.from_bytes(head[1:], "big") == size - PREFIX_BYTES:
                # The whole message at once, as most are: the reader has nothing to do.
                self._fresh = False
                try:
                    self.account(size)
                except EdgefleetError as error:
                    self.fail(failure(error))
                    return
                self._stream.consume(size)
                self._message = Message(False, memoryview(bytes(data[PREFIX_BYTES:])))
                return
        self._fresh = False
        super().received(data)

    def accept(self, messages: list[Message], size: int) -> None:
        self._stream.consume(size)
        for message in messages:
            if self._message is not None:
                raise CallFailed(Code.INTERNAL, "The method takes one message.")
            self._message = message

    def ended(self) -> None:
        if self.done:
            return
        try:
            answer = self._method(self.plain(self._whole()), self)
        except Exception as error:  # noqa: BLE001 - each failure is a status
            self.fail_with(error)
            return
        if isinstance(answer, bytes):
            self.answered(answer)
        else:
            self._message = None
            self.start(answer)

    def _whole(self) -> Message:
        if self._message is None:
            raise CallFailed(Code.INTERNAL, "The request has no complete message.")
        self.check_deadline()
        return self._message

    def answered(self, data: bytes) -> None:
        self._finish()
        more = self._server.head_fields
        head = _head(self._encoding, (*more, *self._noted) if self._noted else more)
        self._stream.reply(head, self.framed(data), OK_TRAILERS)


class _Waiting(NamedTuple):
    """A message of a stream, the part of the window that it holds, and its memory."""

    message: Message
    window_bytes: int
    cost_bytes: int


class StreamCall(Call):
    """A call with any number of messages, each answered in turn.

    A client that sends faster than the method answers waits: its window stays closed while
    QUEUED_MESSAGES or WAITING_BYTES wait here. A client that does not read its answers gets no
    more of them.
    """

    def __init__(self, server: Server, stream: ServerStream, method: Method) -> None:
        super().__init__(server, stream)
        self._method = method
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._unbilled_bytes = 0  # of the message that is being read
        self._current_bytes = 0  # of the message that is being answered
        self._begun = False
        self._complete = False
        self._stalled = False
        self._working = False
        self.watch_deadline()
        stream.hurry(hurried=False)

    def accept(self, messages: list[Message], size: int) -> None:
        full = len(self._waiting) >= QUEUED_MESSAGES or self._waiting_bytes > WAITING_BYTES
        held = size if full and messages else 0
        self._stream.consume(size - held)
        self._unbilled_bytes += size
        for message in messages:
            self._waiting.append(_Waiting(message, held, self._unbilled_bytes))
            self._waiting_bytes += self._unbilled_bytes
            held = self._unbilled_bytes = 0
        self._stream.hurry(hurried=not self._reader.is_between)
        self._work()

    def ended(self) -> None:
        self._complete = True
        self._work()

    def sent(self) -> None:
        self._stalled = False
        self._work()

    def has_begun(self) -> bool:
        return self._begun

    def _work(self) -> None:
        """Answer the waiting messages, until one must be awaited or the client does not read."""
        if self._working or self._task is not None:
            return
        self._working = True
        try:
            while self._waiting and not self.done and self._task is None and not self._stalled:
                waiting = self._waiting.popleft()
                self._waiting_bytes -= waiting.cost_bytes
                if waiting.window_bytes:
                    self._stream.consume(waiting.window_bytes)
                self._answer_one(waiting)
        finally:
            self._working = False
        if self._complete and not self._waiting and self._task is None and not self.done:
            self._end()

    def _answer_one(self, waiting: "_Waiting") -> None:
        before_bytes = self._taken_bytes
        try:
            answer = self._method(self.plain(waiting.message), self)
        except Exception as error:  # noqa: BLE001 - each failure is a status
            self.fail_with(error)
            return
        self._current_bytes = waiting.cost_bytes + self._taken_bytes - before_bytes
        if isinstance(answer, bytes):
            self._send(answer)
        else:
            self.start(answer)

    def answered(self, data: bytes) -> None:
        self._send(data)
        self._work()

    def _send(self, data: bytes) -> None:
        if self.done:
            return
        self._begin()
        self.account(-self._current_bytes)
        self._current_bytes = 0
        self._stream.send(self.framed(data))
        if self._stream.unsent_bytes > UNSENT_BYTES:
            self._stalled = True
            self._stream.when_sent()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._stream.respond(_head(self._encoding, self._server.head_fields))

    def _end(self) -> None:
        if not self._reader.is_between:
            self.fail(CallFailed(Code.INTERNAL, "The last message is incomplete."))
            return
        self._begin()
        self._finish()
        self._stream.send(b"", ends=True, trailers=OK_TRAILERS)


class Refusal:
    """Receives a request that is answered at once: its body has no use."""

    def __init__(self, stream: ServerStream, block: bytes) -> None:
        stream.respond(block, ends=True)
        self._stream = stream

    def received(self, data: memoryview) -> None:
        self._stream.consume(len(data))

    def ended(self) -> None:
        """Nothing is left to do."""

    def aborted(self, code: int) -> bool:
        del code
        return False

    def sent(self) -> None:
        """Nothing is left to do."""


def refuse(stream: ServerStream, end: CallFailed) -> Refusal:
    """Answer with a status before any message."""
    return Refusal(stream, encode_fields([*_OK, *_accepted(end), *trailers(end)]))


def _accepted(end: CallFailed) -> list[tuple[bytes, bytes]]:
    """The encodings that a client can use instead of one that is not supported."""
    return [(b"grpc-accept-encoding", ENCODINGS)] if end.code == Code.UNIMPLEMENTED else []


def _expired() -> CallFailed:
    return CallFailed(Code.DEADLINE_EXCEEDED, "The answer was not ready in time.", reason="timeout")
