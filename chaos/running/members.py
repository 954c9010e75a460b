"""The processes of a scenario by name: started, killed, frozen and replaced, each change noted with its time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import attrs

from chaos.process import ChildProcess

__all__ = ["Member", "StateChange"]

_READY_S_MAX = 30.0


@attrs.frozen
class StateChange:
    """From then on a process was in this state."""

    who: str
    at_s: float
    """Reading of the monotonic clock."""
    state: str
    """``starting``, ``up``, ``frozen`` or ``dead``."""


class Member:
    """One part of the system, which may be several processes one after the other.

    Args:
        name: For people, like ``worker 2``.
        spawn: Makes the process of an incarnation, counted from 1, without waiting for it.
        note: Is told of each change.
    """

    def __init__(
        self, name: str, spawn: Callable[[int], ChildProcess], ready: str, note: Callable[[StateChange], None]
    ) -> None:
        self.name = name
        self.incarnation = 0
        self.state = "dead"
        self.expected_up = False
        self._spawn = spawn
        self._ready = ready
        self._note = note
        self._children: list[ChildProcess] = []

    @property
    def child(self) -> ChildProcess:
        """The process of the present, or last, incarnation."""
        return self._children[-1]

    @property
    def pids(self) -> list[int]:
        """Of all incarnations."""
        return [child.pid for child in self._children]

    def launch(self) -> None:
        """Start the next incarnation; ``ready`` waits for it."""
        self.incarnation += 1
        self._children.append(self._spawn(self.incarnation))
        self.expected_up = True
        self._set("starting")

    def await_ready(self) -> None:
        """Until it says so.

        Raises:
            StartFailed: It ended, or did not.
        """
        self.child.wait_line(self._ready, _READY_S_MAX)
        self._set("up")

    def look(self) -> None:
        """Notice that it is ready, or that it ended, without waiting."""
        if self.state != "dead" and not self.child.alive:
            self._set("dead")
        elif self.state == "starting" and self._ready in self.child.output():
            self._set("up")

    def kill(self) -> str:
        """SIGKILL; the proof."""
        self.expected_up = False
        self.child.kill()
        self._set("dead")
        return f"pid {self.child.pid} ended by signal 9"

    def freeze(self) -> str:
        """SIGSTOP; the proof."""
        self.child.pause()
        self._set("frozen")
        return f"pid {self.child.pid} stopped by the kernel's word"

    def thaw(self) -> str:
        """SIGCONT; the proof."""
        self.child.resume()
        self._set("up")
        return f"pid {self.child.pid} continued"

    def close(self) -> None:
        """End whatever is left."""
        with contextlib.ExitStack() as stack:
            for child in self._children:
                stack.callback(child.close)

    def lost(self) -> bool:
        """Whether it is gone though nobody killed it."""
        return self.expected_up and not self.child.alive

    def _set(self, state: str) -> None:
        self.state = state
        self._note(StateChange(self.name, time.monotonic(), state))
