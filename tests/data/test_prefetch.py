"""Batches made ahead: the same batches, bounded, and errors where they belong."""

import threading
import time

import pytest

from gradus.data.prefetch import Prefetch


def test_steps_come_as_the_function_gives_them_in_any_order() -> None:
    with Prefetch(lambda step: step * step, ahead=3) as batches:
        assert [batches(step) for step in (0, 1, 2, 3, 10, 11, 5, 5, 6, 0)] == [0, 1, 4, 9, 100, 121, 25, 25, 36, 0]


def test_the_next_steps_are_made_while_nobody_asks_and_no_more_of_them_than_allowed() -> None:
    made: list[int] = []
    fourth = threading.Event()

    def make(step: int) -> int:
        made.append(step)
        if step == 3:
            fourth.set()
        return step

    with Prefetch(make, ahead=3) as batches:
        batches(0)
        assert fourth.wait(120)
        time.sleep(0.05)
        assert made == [0, 1, 2, 3]
        assert batches(1) == 1


def test_an_error_is_raised_for_its_own_step() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("no such batch")
        return step

    with Prefetch(make) as batches:
        assert (batches(0), batches(1)) == (0, 1)
        with pytest.raises(ValueError, match="no such batch"):
            batches(2)
        assert batches(3) == 3
        with pytest.raises(ValueError, match="no such batch"):
            batches(2)


def test_nothing_is_made_before_it_is_asked_for_or_after_the_end() -> None:
    made: list[int] = []
    with Prefetch(lambda step: made.append(step)):
        time.sleep(0.02)
        assert made == []
    names = {thread.name for thread in threading.enumerate()}
    assert not any(name.startswith("batches") for name in names)
