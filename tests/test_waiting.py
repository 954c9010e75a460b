"""``reliable.sync.waiting``: what blocking shells wait with."""

from __future__ import annotations

import threading
import time

from reliable.sync.waiting import Signal


def test_a_signal_that_was_set_lets_the_next_wait_return_at_once() -> None:
    """The waiter may come late; what it waits for must not be lost."""
    signal = Signal()
    signal.set()
    signal.set()
    began = time.monotonic()
    signal.wait(30.0)
    assert time.monotonic() - began < 10.0


def test_a_wait_uses_the_signal_up_and_has_an_end() -> None:
    """Whoever waits looks for itself afterwards, so a wait without a signal only has to end."""
    signal = Signal()
    signal.set()
    signal.wait(30.0)
    began = time.monotonic()
    signal.wait(0.05)
    assert time.monotonic() - began >= 0.05


def test_a_signal_that_was_taken_back_is_waited_for_again() -> None:
    """As at the beginning of each round, when an old one must not count."""
    signal = Signal()
    signal.set()
    signal.clear()
    signal.clear()
    began = time.monotonic()
    signal.wait(0.05)
    assert time.monotonic() - began >= 0.05


def test_a_signal_wakes_a_thread_that_waits() -> None:
    """Followers are called by the leader like this."""
    signal = Signal()
    waiter = threading.Thread(target=signal.wait, args=(30.0,), daemon=True)
    waiter.start()
    signal.set()
    waiter.join(10.0)
    assert not waiter.is_alive()
