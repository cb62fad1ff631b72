"""Closed-loop load of one request, with as little CPU as Python allows.

``python bench/serving_load.py HOST PORT REQUEST_FILE CONNECTIONS SECONDS CORE`` sends the bytes of
the file over each connection again when its answer is here (a file has requests, each behind its
length in 8 bytes; the connections take them in turn), and prints one line of JSON: the
answers, the seconds, and their latencies in microseconds. Every answer must have status 200 and the
length that its head says. ``edgefleet bench`` measures more, and costs three times the CPU.
"""

import json
import os
import select
import socket
import sys
import time
from pathlib import Path

READ_BYTES = 1 << 20


def connect(host: str, port: int) -> socket.socket:
    made = socket.create_connection((host, port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setblocking(False)
    return made


def length_of(answer: bytes) -> int:
    """The whole length of the answer that begins with these bytes. 0 while its head is not here."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = answer[:end].lower()
    if not head.startswith(b"http/1.1 200"):
        sys.exit(f"no answer: {answer[:300]!r}")
    length = head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
    return end + 4 + int(length)


class Connection:
    def __init__(self, host: str, port: int, request: bytes) -> None:
        self.socket = connect(host, port)
        self._request = memoryview(request)
        self.unsent = self._request[:0]
        self._answer = b""
        self._began = 0.0

    def begin(self) -> None:
        self._began = time.perf_counter()
        self.unsent = self._request
        self.write()

    def write(self) -> bool:
        """Send on. True if all has been sent."""
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            return False
        return not self.unsent

    def read(self) -> float:
        """The latency in microseconds if the answer is whole now, else 0."""
        got = self.socket.recv(READ_BYTES)
        if not got:
            sys.exit("the server closed the connection")
        self._answer = self._answer + got if self._answer else got
        if len(self._answer) != length_of(self._answer):
            return 0.0
        self._answer = b""
        return (time.perf_counter() - self._began) * 1e6


def read_requests(data: bytes) -> list[bytes]:
    found: list[bytes] = []
    while data:
        size = int.from_bytes(data[:8], "big")
        found.append(data[8 : 8 + size])
        data = data[8 + size :]
    return found


def main(host: str, port: int, requests: list[bytes], connections: int, seconds: float) -> None:
    poll = select.epoll()
    by_number: dict[int, Connection] = {}
    for number in range(connections):
        one = Connection(host, port, requests[number % len(requests)])
        by_number[one.socket.fileno()] = one
        poll.register(one.socket, select.EPOLLIN)
    both = select.EPOLLIN | select.EPOLLOUT
    took: list[float] = []
    began = time.perf_counter()
    stops = began + seconds
    in_flight = connections
    writing: set[int] = set()

    def start(number: int, one: Connection) -> None:
        one.begin()
        if one.unsent:
            writing.add(number)
            poll.modify(number, both)

    for number, one in by_number.items():
        start(number, one)
    while in_flight:
        for number, event in poll.poll(5):
            one = by_number[number]
            if event & select.EPOLLOUT and number in writing and one.write():
                writing.discard(number)
                poll.modify(number, select.EPOLLIN)
            if not event & select.EPOLLIN:
                continue
            us = one.read()
            if us:
                took.append(us)
                if time.perf_counter() < stops:
                    start(number, one)
                else:
                    in_flight -= 1
    elapsed = time.perf_counter() - began
    took.sort()
    at = {f"p{share:g}": took[int(share / 100 * (len(took) - 1))] for share in (50, 90, 99)}
    print(json.dumps({"answers": len(took), "seconds": elapsed, **at}))


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[6])})
    asked = read_requests(Path(sys.argv[3]).read_bytes())
    main(sys.argv[1], int(sys.argv[2]), asked, int(sys.argv[4]), float(sys.argv[5]))
