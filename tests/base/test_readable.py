import fcntl
import os
import resource
from collections.abc import Iterator

import pytest

from edgefleet.base.readable import wait_readable

HIGH = 1500  # above FD_SETSIZE, which is 1024


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The two ends of a pipe, the first one with a high number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft <= HIGH:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(2 * HIGH, hard), hard))
    low, write = os.pipe()
    read = fcntl.fcntl(low, fcntl.F_DUPFD, HIGH)
    os.close(low)
    yield read, write
    os.close(read)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_descriptor_with_a_high_number_is_waited_for(pipe: tuple[int, int]) -> None:
    read, write = pipe
    assert not wait_readable(read, 0.01)
    os.write(write, b"x")
    assert wait_readable(read)
    os.read(read, 1)
    os.close(write)
    assert wait_readable(read), "its end can be read"
