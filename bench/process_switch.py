"""The cheapest round trips between two processes on this machine, in Python.

A worker cannot answer faster than such a trip, so its cost is given as a multiple of one. One byte
goes to another process, which waits for it in a blocking call, and comes back at once.
"""

import asyncio
import mmap
import os
import socket
import subprocess
import sys
import time

import uvloop

_BYTE = b"x"
_PLACES = 0, 64  # of the byte on its way and back, in two lines of the cache

_PEER = """
import mmap, os, socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
asked, answered, memory = map(int, sys.argv[2:])
if not asked:
    while data := channel.recv(64):
        channel.send(data)
    sys.exit()
shared = mmap.mmap(memory, mmap.PAGESIZE)
while os.eventfd_read(asked) == 1:
    shared[64] = shared[0]
    os.eventfd_write(answered, 1)
"""


class _Peer:
    """The other process. Without ``events`` it answers on the socket, else over shared memory."""

    def __init__(self, *, events: bool) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        passed = [theirs.fileno()]
        if events:
            passed += [os.eventfd(0), os.eventfd(0), os.memfd_create("switch")]
            os.ftruncate(passed[3], mmap.PAGESIZE)
            self.shared = mmap.mmap(passed[3], mmap.PAGESIZE)
        self._mine = passed[1:]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PEER, *map(str, passed), *["0"] * (4 - len(passed))],
            pass_fds=passed,
        )
        theirs.close()

    def by_socket(self) -> None:
        self.channel.send(_BYTE)
        self.channel.recv(64)

    def by_eventfd(self) -> None:
        asked, answered, _ = self._mine
        self.shared[_PLACES[0]] = 1
        os.eventfd_write(asked, 1)
        os.eventfd_read(answered)
        if self.shared[_PLACES[1]] != 1:
            raise ValueError("the byte did not come back")

    async def by_loop(self) -> None:
        """As ``by_socket``, but the event loop waits for the answer."""
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()
        loop.add_reader(self.channel, arrived.set_result, None)
        self.channel.send(_BYTE)
        await arrived
        loop.remove_reader(self.channel)
        self.channel.recv(64)

    def end(self) -> None:
        self.channel.close()
        if self._mine:
            os.eventfd_write(self._mine[0], 2)  # any other number than 1
        self._process.wait()
        for descriptor in self._mine:
            os.close(descriptor)


class ProcessSwitches:
    """Measures the three ways in turn. ``uvloop``: the event loop waits for the answer."""

    def __init__(self) -> None:
        self._plain, self._events = _Peer(events=False), _Peer(events=True)
        self._looped = _Peer(events=False)  # the loop makes its socket non-blocking
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.took_us: dict[str, list[float]] = {"socket": [], "eventfd": [], "uvloop": []}

    def turn(self) -> None:
        """One round trip of each. The first trip after a pause is slower, and not counted."""
        self._runner.run(self._turn())

    def end(self) -> None:
        self._runner.close()
        self._plain.end()
        self._events.end()
        self._looped.end()

    async def _turn(self) -> None:
        self._plain.by_socket()
        self._events.by_eventfd()
        await self._looped.by_loop()
        began = time.perf_counter_ns()
        self._plain.by_socket()
        read = time.perf_counter_ns()
        self._events.by_eventfd()
        woken = time.perf_counter_ns()
        await self._looped.by_loop()
        ended = time.perf_counter_ns()
        for took, ns in zip(
            self.took_us.values(), (read - began, woken - read, ended - woken), strict=True
        ):
            took.append(ns / 1000)
