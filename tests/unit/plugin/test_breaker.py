"""When a host is left alone, and for how long."""

from __future__ import annotations

from onceedit_vllm.plugin.breaker import CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_opens_after_three_failures_in_a_row_for_twice_as_long_each_time() -> None:
    clock = Clock()
    breaker = CircuitBreaker(30.0, 100.0, clock=clock)
    for _ in range(2):
        breaker.failed()
        assert not breaker.is_open
    for seconds in (30.0, 60.0, 100.0, 100.0):
        breaker.failed()  # the third, and then every try
        assert breaker.is_open
        clock.now += seconds - 0.1
        assert breaker.is_open
        clock.now += 0.1
        assert not breaker.is_open
    assert breaker.num_opened == 4


def test_a_success_makes_it_forget() -> None:
    clock = Clock()
    breaker = CircuitBreaker(30.0, 300.0, clock=clock)
    for _ in range(4):
        breaker.failed()
    clock.now += 60.0
    breaker.succeeded()
    for _ in range(2):
        breaker.failed()
    assert not breaker.is_open
    breaker.failed()
    clock.now += 30.0
    assert not breaker.is_open
