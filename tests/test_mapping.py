"""``reliable.mapping``: which call of a map is looked at next."""

from __future__ import annotations

import pytest

from reliable.errors import RequestError, ServiceNotFound
from reliable.mapping import MapWindow, total_of
from reliable.open_calls import OpenCall
from reliable.payload import MSGPACK
from reliable.protocol.events import CallFinished, Submit


class _Bench:
    """A window, and calls numbered from 0 that end as they are told."""

    def __init__(self, *, ordered: bool, in_flight: int = 2, return_errors: bool = False) -> None:
        self.window = MapWindow(
            ordered=ordered, in_flight=in_flight, total=None, on_progress=None, return_errors=return_errors
        )
        self.calls: list[OpenCall] = []

    def add(self) -> None:
        submit = Submit(call_id=bytes([len(self.calls)]) * 16, service=b"s", body=[b""], deadline=None)
        call = OpenCall(submit, lambda: None)
        call.wake = lambda: self.window.touch(call)
        self.calls.append(call)
        self.window.add(call)

    def end(self, number: int, error: RequestError | None = None) -> None:
        call = self.calls[number]
        call.take(CallFinished(call.submit.call_id, [bytes([number])] if error is None else error))
        self.window.sort()

    def fill(self) -> int:
        count = 0
        while self.window.has_room:
            self.add()
            count += 1
        return count


def test_in_order_the_first_is_waited_for() -> None:
    """However many behind it are over; of those there are as many as may be open, and no more."""
    bench = _Bench(ordered=True)
    assert bench.fill() == 2
    bench.end(1)
    assert not bench.window.ready
    assert bench.fill() == 1
    bench.end(2)
    assert bench.fill() == 1
    bench.end(3)
    assert bench.fill() == 0
    bench.end(0)
    assert [bench.window.take(MSGPACK) for _ in range(4)] == [0, 1, 2, 3]
    assert bench.fill() == 2


def test_else_whatever_is_over_is_next() -> None:
    """In the order in which they ended, and with the same bound on what nobody has taken."""
    bench = _Bench(ordered=False)
    assert bench.fill() == 2
    bench.end(1)
    assert bench.window.take(MSGPACK) == 1
    assert bench.fill() == 1
    bench.end(2)
    bench.end(0)
    assert bench.fill() == 2
    assert bench.window.ready
    assert [bench.window.take(MSGPACK), bench.window.take(MSGPACK)] == [2, 0]


@pytest.mark.parametrize("ordered", [True, False])
def test_it_is_done_when_all_was_taken(ordered: bool) -> None:
    """Not before: neither while a call is open nor while a result waits."""
    bench = _Bench(ordered=ordered)
    bench.add()
    bench.window.exhausted = True
    assert (bench.window.done, bench.window.has_room) == (False, False)
    bench.end(0)
    assert not bench.window.done
    bench.window.take(MSGPACK)
    assert bench.window.done


def test_errors_are_raised_or_given() -> None:
    """As the user wants it; what cannot be decoded is never taken for an error of the call."""
    for return_errors in (True, False):
        bench = _Bench(ordered=True, return_errors=return_errors)
        bench.add()
        error = ServiceNotFound("nobody")
        bench.end(0, error)
        if return_errors:
            assert bench.window.take(MSGPACK) is error
        else:
            with pytest.raises(ServiceNotFound):
                bench.window.take(MSGPACK)


def test_closing_forgets_all_and_tells_what_was_open() -> None:
    """So that it can be cancelled."""
    bench = _Bench(ordered=False, in_flight=3)
    bench.fill()
    bench.end(1)
    assert [call.submit.call_id[0] for call in bench.window.open_calls()] == [0, 2]
    bench.window.close()
    assert bench.window.done
    bench.end(0)
    assert not bench.window.ready


def test_the_total_is_told_if_it_can_be_known() -> None:
    """Without taking a single item."""
    assert total_of([1, 2]) == 2
    assert total_of(range(3)) == 3
    assert total_of(iter([1])) is None


def test_nothing_in_flight_is_refused() -> None:
    """It would never end."""
    with pytest.raises(ValueError, match="at least 1"):
        _Bench(ordered=True, in_flight=0)
