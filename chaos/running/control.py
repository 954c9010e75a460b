"""The control: what a plain REQ socket makes of the same faults, as most programs would use it.

It sends, waits, sends again. A REQ socket has no notion of a reply that does not come: its wait has no end. The thread
looks now and then whether the run is over, which a program that just calls ``recv`` would not.
"""

from __future__ import annotations

import threading
import time

import attrs
import msgspec
import zmq

from chaos.running.wishes import Wish

__all__ = ["Control", "ControlCall"]

_LOOK_EVERY_MS = 50
_WORK_S = 0.1
_PAUSE_S = 0.02
_JOIN_S = 2.0
_BUSY_S_MAX = 1.0


@attrs.define
class ControlCall:
    """One call of the control; times are readings of the monotonic clock."""

    key: str
    began: float
    ended: float | None = None


class Control:
    """One REQ socket in a thread."""

    def __init__(self, address: str) -> None:
        self.calls: list[ControlCall] = []
        self._address = address
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        """Begin to call."""
        self._thread.start()

    def await_busy(self) -> None:
        """Return when a request is in the server's hands, or after a second.

        A fault between two calls would prove nothing. A call that hangs already counts as well.
        """
        until = time.monotonic() + _BUSY_S_MAX
        while time.monotonic() < until:
            last = self.calls[-1] if self.calls else None
            if last is not None and last.ended is None:
                age_s = time.monotonic() - last.began
                if 0.1 * _WORK_S < age_s < 0.5 * _WORK_S or age_s > 3 * _WORK_S:
                    return
            time.sleep(0.002)

    def stop(self) -> None:
        """End, also in the middle of a wait that has no end; calling it again does nothing."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        wish = msgspec.json.encode(Wish(work_s=_WORK_S))
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self._address)
            number = 0
            while not self._stopping.is_set():
                number += 1
                call = ControlCall(f"control.{number}", time.monotonic())
                self.calls.append(call)
                socket.send_multipart([call.key.encode(), wish])
                while not socket.poll(_LOOK_EVERY_MS):
                    if self._stopping.is_set():
                        return
                socket.recv()
                call.ended = time.monotonic()
                self._stopping.wait(_PAUSE_S)
