"""The blocking client."""

from __future__ import annotations

import _thread
import os
import sys
import threading
import warnings
import weakref
from typing import Final

from reliable.calling import UNSET, CallOptions, ClientSetup, Timeout, TraceSource, Unset
from reliable.config import ClientConfig, Dialect
from reliable.engine.client import ClientCounters, ClientSnapshot
from reliable.errors import ClosedError
from reliable.payload import MSGPACK, Codec
from reliable.sync.calls import ClientCalls, ClientView
from reliable.sync.pump import ClientPump
from reliable.types import Observer

__all__ = ["Client", "ClientView"]


class Client(ClientCalls):
    """Makes calls and waits for their replies. One may be shared by any number of threads.

    Sockets open with the first call. Whoever waits for a call does the work; a background thread starts with the first
    ``submit`` or ``map`` and sleeps while none of theirs is open. After ``fork`` the child's client starts anew by
    itself, and calls in flight stay the parent's alone.

    Args:
        brokers: Addresses like ``tcp://localhost:5555`` or ``ipc:///run/broker``, in order of preference.
        timeout: Seconds for a call that names none, over all attempts; None is no limit. Not given:
            ``config.timeout_s``, 30 s.
        config: All settings.
        codec: How ``call`` writes arguments and reads results.
        observer: Is told of attempts, failovers and losses; called under a lock, so it must not call the client.
        dialect: What is spoken, in place of ``config.dialect``: ``"mdp"`` to a broker of this library, ``"mdp/0.1"`` or
            ``"mdp/0.2"`` to any Majordomo broker, ``"req"`` to a REP or ROUTER server, ``"ppp"`` to a Paranoid Pirate
            queue, ``"freelance"`` to servers of 10/FLP. In all but the first no services are declared, so a call runs
            more than once only if the call says ``idempotent=True``.
        trace_source: Gives the W3C trace context of each call that is given none.

    Raises:
        ValueError: No broker, an address that cannot be read, a bad timeout or an unknown dialect.
    """

    def __init__(
        self,
        *brokers: str,
        timeout: Timeout = UNSET,
        config: ClientConfig | None = None,
        codec: Codec = MSGPACK,
        observer: Observer | None = None,
        dialect: str | Dialect | Unset = UNSET,
        trace_source: TraceSource | None = None,
    ) -> None:
        self._pump: ClientPump | None = None
        self._closed = False
        setup = ClientSetup(brokers, timeout, config, codec, observer, dialect=dialect, trace_source=trace_source)
        super().__init__(setup, CallOptions())
        self._guard = threading.Lock()
        self._pid = os.getpid()
        _clients.add(self)

    def stats(self) -> ClientCounters:
        """What the client did since it was made or forked; a copy."""
        pump = self._pump
        return pump.stats() if pump is not None else ClientCounters()

    def snapshot(self) -> ClientSnapshot | None:
        """What the client holds now: brokers, links, calls. None before the first call."""
        pump = self._pump
        return pump.snapshot() if pump is not None else None

    def close(self, timeout: float = 1.0) -> None:
        """End every call with ``RequestAbandoned`` and close all sockets. A second time does nothing.

        Args:
            timeout: Seconds that the thread which leads gets to notice.
        """
        with self._guard:
            self._closed = True
            pump = self._pump
        if pump is not None:
            pump.close(timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._pump is not None and not self._closed and not sys.is_finalizing():
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)
            if self._pump.background.is_here():
                # Collected amid the pump's own work, perhaps under its lock.
                _thread.start_new_thread(self._pump.close, (0.0,))
            else:
                self._pump.close(0.0)

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        brokers = " ".join(self._setup.brokers) if hasattr(self, "_setup") else ""
        return f"<{type(self).__name__}{state} {brokers}>"

    # --- inner ------------------------------------------------------------------------------------

    def _usable(self) -> ClientPump:
        pump = self._pump
        if pump is None or pump.over or self._pid != os.getpid():
            pump = self._renewed()
        return pump

    def _current(self) -> ClientPump | None:
        return self._pump

    def _owner(self) -> object:
        return self

    def _renewed(self) -> ClientPump:
        """A pump that can be used: the first one, or one after fork or after Ctrl-C at a bad moment."""
        with self._guard:
            if self._closed:
                raise ClosedError("the client is closed")
            if self._pid != os.getpid():
                self._forget()
            if self._pump is not None and self._pump.over:
                self._pump.close(0.0)
                self._pump = None
            if self._pump is None:
                self._pump = ClientPump(self._setup)
            return self._pump

    def _forget(self) -> None:
        if self._pump is not None:
            self._pump.forget()
            # Kept for ever: if it were collected, its sockets, which are the parent's, would be closed.
            _forgotten.append(self._pump)
        self._pump = None
        self._pid = os.getpid()

    def _after_fork(self) -> None:
        self._guard = threading.Lock()
        self._forget()


_clients: Final[weakref.WeakSet[Client]] = weakref.WeakSet()
_forgotten: Final[list[ClientPump]] = []


def _after_fork() -> None:
    for client in list(_clients):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
