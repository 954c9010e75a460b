"""The blocking client."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
import weakref
from typing import Final

from reliable.calling import UNSET, CallOptions, ClientSetup, Timeout, unwrap
from reliable.config import ClientConfig
from reliable.engine.client import ClientCounters, ClientSnapshot
from reliable.errors import ClosedError
from reliable.payload import MSGPACK, Codec, decode_reply, encode_call
from reliable.sync.pump import ClientPump
from reliable.types import Frames, Observer

__all__ = ["Client", "ClientView"]


class ClientView:
    """A client under other options; from ``Client.options``. It is open as long as its client is."""

    def __init__(self, client: Client, options: CallOptions) -> None:
        self._client = client
        self._options = options

    def request(
        self,
        service: str,
        *frames: bytes,
        timeout: Timeout = UNSET,
        idempotent: bool | None = None,
        fail_fast: bool | None = None,
    ) -> Frames:
        """Like ``Client.request``."""
        options = self._options.changed(timeout, idempotent, fail_fast)
        return self._client._request(service, frames, options)

    def call(self, service: str, /, *args: object, **kwargs: object) -> object:
        """Like ``Client.call``, under the options of this view."""
        return self._client._call(service, args, kwargs, self._options)

    def options(
        self, *, timeout: Timeout = UNSET, idempotent: bool | None = None, fail_fast: bool | None = None
    ) -> ClientView:
        """A view with some options changed once more."""
        return ClientView(self._client, self._options.changed(timeout, idempotent, fail_fast))


class Client:
    """Makes calls and waits for their replies. One may be shared by any number of threads.

    Sockets open with the first call. There is no background thread: whoever waits for a call does the work. After
    ``fork`` the child's client starts anew by itself, and calls in flight stay the parent's alone.

    Args:
        brokers: Addresses like ``tcp://localhost:5555`` or ``ipc:///run/broker``, in order of preference.
        timeout: Seconds for a call that names none, over all attempts; None is no limit. Not given:
            ``config.timeout_s``, 30 s.
        config: All settings.
        codec: How ``call`` writes arguments and reads results.
        observer: Is told of attempts, failovers and losses; called under a lock, so it must not call the client.

    Raises:
        ValueError: No broker, an address that cannot be read, or a bad timeout.
    """

    def __init__(
        self,
        *brokers: str,
        timeout: Timeout = UNSET,
        config: ClientConfig | None = None,
        codec: Codec = MSGPACK,
        observer: Observer | None = None,
    ) -> None:
        self._pump: ClientPump | None = None
        self._closed = False
        self._setup = ClientSetup(brokers, timeout, config, codec, observer)
        self._guard = threading.Lock()
        self._pid = os.getpid()
        _clients.add(self)

    def request(
        self,
        service: str,
        *frames: bytes,
        timeout: Timeout = UNSET,
        idempotent: bool | None = None,
        fail_fast: bool | None = None,
    ) -> Frames:
        """Send frames to a service and wait for the frames of its reply.

        Args:
            service: Name as its workers register it: 1 to 255 printable ASCII characters without spaces.
            frames: The body; none is one empty frame.
            timeout: Seconds in all, from here to the reply: resolving, connecting, queueing, every attempt, the run.
                None is no limit. Within a handler the deadline of the request being handled bounds it too.
            idempotent: Whether the work may run more than once, even at the same time. None: as the service declares,
                else no. A service that declares no is not overruled.
            fail_fast: True: end at once if no broker knows a worker for the service, instead of waiting for one.

        Returns:
            The body of the reply, at least one frame.

        Raises:
            WorkerFailed: The handler raised. EXECUTED.
            RequestTimeout: No reply in time. ``outcome`` says whether it may have run.
            ServiceNotFound: No worker for it, by ``fail_fast`` or until the deadline. NOT_EXECUTED.
            BrokerUnreachable: No broker was reached. NOT_EXECUTED.
            QueueFull: A limit of ours or of the broker. NOT_EXECUTED.
            MessageTooLarge: Request (NOT_EXECUTED) or reply (EXECUTED) above a limit.
            WorkerLost, BrokerLost: Whoever held it is gone, and it is not idempotent. UNKNOWN.
            RequestAbandoned: The client was closed meanwhile. UNKNOWN, or NOT_EXECUTED if it was never sent.
            ClosedError: The client is closed.
            PayloadError: A frame is not bytes.
            ValueError: A bad service name or timeout.
        """
        return self._request(service, frames, CallOptions(timeout=timeout, idempotent=idempotent, fail_fast=fail_fast))

    def call(self, service: str, /, *args: object, **kwargs: object) -> object:
        """Call a service like a function, by the client's codec; ``options`` sets timeout and the like.

        Args:
            service: Its name.
            args: Positional arguments of the handler, anything that the codec can write.
            kwargs: Its named arguments.

        Returns:
            What the handler returned, as the codec reads it.

        Raises:
            PayloadError: Arguments that the codec cannot write, or a reply that it cannot read.
            RequestError: As ``request``.
        """
        return self._call(service, args, kwargs, CallOptions())

    def options(
        self, *, timeout: Timeout = UNSET, idempotent: bool | None = None, fail_fast: bool | None = None
    ) -> ClientView:
        """The same client under other options: ``client.options(timeout=2).call("add", 1, 2)``."""
        return ClientView(self, CallOptions(timeout=timeout, idempotent=idempotent, fail_fast=fail_fast))

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
            timeout: Seconds that threads which wait for calls get to notice.
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
            self._pump.close(0.0)

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<{type(self).__name__}{state} {' '.join(self._setup.brokers)}>" if self._setup else "<Client>"

    # --- inner ------------------------------------------------------------------------------------

    def _request(self, service: str, body: tuple[object, ...] | Frames, options: CallOptions) -> Frames:
        submit = self._setup.submit(service, body, options, time.monotonic())
        pump = self._pump
        if pump is None or pump.over or self._pid != os.getpid():
            pump = self._renewed()
        return unwrap(pump.call(submit))

    def _call(self, service: str, args: tuple[object, ...], kwargs: dict[str, object], options: CallOptions) -> object:
        codec = self._setup.codec
        return decode_reply(codec, self._request(service, encode_call(codec, args, kwargs), options))

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
