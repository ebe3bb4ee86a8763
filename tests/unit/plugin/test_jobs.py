"""What other threads ask of the serving thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from onceedit_vllm.errors import BadInputError, HostError
from onceedit_vllm.plugin.jobs import Jobs


def test_it_is_done_on_the_thread_that_takes_and_its_error_is_raised_where_it_was_asked() -> None:
    jobs, where = Jobs(), list[str]()

    def refuse() -> None:
        raise BadInputError("no")

    with ThreadPoolExecutor(2) as pool:
        good = pool.submit(jobs.ask, lambda: where.append(threading.current_thread().name))
        bad = pool.submit(jobs.ask, refuse)
        while not (good.done() and bad.done()):
            jobs.do_all()
    assert where == [threading.current_thread().name]
    with pytest.raises(BadInputError, match="no"):
        bad.result()


def test_what_nobody_comes_to_is_not_done_later() -> None:
    jobs, done = Jobs(), list[int]()
    with pytest.raises(HostError, match="has not come to it"):
        jobs.ask(lambda: done.append(1), seconds=0.0)
    jobs.do_all()
    assert done == []


def test_after_the_end_nothing_is_done() -> None:
    jobs = Jobs()
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(jobs.ask, lambda: None)
        while jobs._waiting.empty():
            pass
        jobs.end()
        with pytest.raises(HostError, match="has ended"):
            early.result()
    with pytest.raises(HostError, match="has ended"):
        jobs.ask(lambda: None)
