"""Shared memory for large request bodies: a worker reads tensors where they were received.

The memory is one sparse file, mapped here and, read-only, in each worker. A body gets room for its
announced size; only bytes that have arrived take memory. The room is free again when nothing refers
to the body. Free room above ``KEPT_BYTES`` goes back to the system.
"""

import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from typing import Final

import numpy as np

from edgefleet.serving.limits import BODY_MEMORY_BYTES, INFERENCE, KEPT_BYTES
from edgefleet.serving.runtime import Tensor
from edgefleet.serving.tensors import json_length

_ALIGNMENT: Final = 64
_SMALL_BYTES: Final = 16 << 10  # a smaller tensor is copied: that costs less than to find it


class BodyMemory:
    """The memory of one serving process. ``descriptor`` is for its workers, to read.

    ``most_bytes`` is the limit of one body.
    """

    def __init__(
        self, size_bytes: int = BODY_MEMORY_BYTES, most_bytes: int = INFERENCE.body_bytes
    ) -> None:
        self.most_bytes = most_bytes
        writable = os.memfd_create("edgefleet-bodies")
        try:
            os.ftruncate(writable, size_bytes)
            self._map = mmap.mmap(writable, size_bytes)
            self.descriptor = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY)
        finally:
            os.close(writable)
        self._size_bytes = size_bytes
        self._first = _address(np.frombuffer(self._map, np.uint8))
        self._rooms: dict[int, tuple[int, weakref.ref[Tensor]]] = {}  # start: end, body
        self._lock = threading.Lock()
        self._free: deque[int] = deque()  # starts of rooms, from any thread

    def close(self) -> None:
        """Start no more workers."""
        os.close(self.descriptor)

    def room(self, size_bytes: int, headers: Mapping[bytes, bytes]) -> memoryview | None:
        """Room for a body. None if there is not so much.

        The bytes behind the JSON of the request are aligned: a tensor there needs no copy.
        """
        with self._lock:  # a thread reads compressed bodies
            return self._room(size_bytes, headers)

    def _room(self, size_bytes: int, headers: Mapping[bytes, bytes]) -> memoryview | None:
        while self._free:
            del self._rooms[self._free.popleft()]
        shift = -max(0, json_length(headers) or 0) % _ALIGNMENT
        wanted = -(-(shift + size_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
        start = 0
        for other, (end, _) in sorted(self._rooms.items()):
            if other - start >= wanted:
                break
            start = end
        else:
            if self._size_bytes - start < wanted:
                return None
        body: Tensor = np.frombuffer(self._map, np.uint8, size_bytes, start + shift)

        def freed(_: object) -> None:
            self._return(start, start + wanted)

        self._rooms[start] = (start + wanted, weakref.ref(body, freed))
        return body.data

    def offset(self, tensor: Tensor) -> int:
        """The place of ``tensor`` in this memory. -1 if it is small, or not in this memory."""
        if tensor.nbytes < _SMALL_BYTES or tensor.dtype == object:
            return -1
        at = _address(tensor) - self._first
        inside = 0 <= at <= self._size_bytes - tensor.nbytes
        return at if inside and tensor.flags.c_contiguous else -1

    def _return(self, start: int, end: int) -> None:
        above = max(start, KEPT_BYTES)
        if end > above:
            self._map.madvise(mmap.MADV_REMOVE, above, end - above)
        self._free.append(start)


def _address(array: Tensor) -> int:
    return array.ctypes.data
