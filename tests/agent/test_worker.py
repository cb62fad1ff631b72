"""Work that can be stopped, together with its child process."""

import threading

import pytest

from edgefleet.agent.worker import Stopped, Token, Worker


def test_a_stop_ends_what_the_work_started() -> None:
    token, ended = Token(), threading.Event()
    with token.ending(ended.set):
        token.check()
        token.stop()
        assert ended.is_set()
    with pytest.raises(Stopped):
        token.check()


def test_a_stop_that_came_first_ends_it_all_the_same() -> None:
    token, ended = Token(), threading.Event()
    token.stop()
    with token.ending(ended.set):
        assert ended.is_set()


def test_a_stop_ends_nothing_that_is_over() -> None:
    token, ended = Token(), threading.Event()
    with token.ending(ended.set):
        pass
    token.stop()
    assert not ended.is_set()


def test_tasks_are_done_in_turn_and_a_failure_is_told_and_stops_none() -> None:
    done: list[str] = []
    failed: list[BaseException] = []
    worker = Worker("test", failed.append)

    def fails() -> None:
        raise ValueError

    for task in (lambda: done.append("first"), fails, lambda: done.append("last")):
        worker.do(task)
    worker.close(10.0)
    assert done == ["first", "last"]
    assert [type(error) for error in failed] == [ValueError]
