"""Waiting ends, with what was waited for or with a text that names it."""

from __future__ import annotations

import threading
import time

import pytest

from reliable.testing.waiting import LeftRunning, eventually, join


def test_what_the_condition_gave_is_returned() -> None:
    """It saves asking twice, when the second answer may be another one."""
    values = iter([0, None, "", "there"])
    assert eventually(lambda: next(values)) == "there"


def test_condition_that_never_holds_fails_in_time_and_is_named() -> None:
    """A hang in a test tells nobody anything."""
    began = time.monotonic()
    with pytest.raises(AssertionError, match=r"^not within 0\.05 s: the lamp is lit$"):
        eventually(lambda: False, 0.05, "the lamp is lit")
    assert time.monotonic() - began < 2


def test_condition_is_asked_at_least_once() -> None:
    """With no time at all, what holds already holds."""
    assert eventually(lambda: True, 0.0)


def test_thread_that_does_not_end_is_an_error_that_names_it() -> None:
    """What is left behind fails some other test, later."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait, args=(10,))
    thread.start()
    with pytest.raises(LeftRunning, match=r"^the lamp did not end within 0\.01 s$"):
        join(thread, "the lamp", 0.01)
    end.set()
    join(thread, "the lamp")
