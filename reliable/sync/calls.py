"""Everything that can be called: what the blocking client and its views offer alike."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from reliable.calling import UNSET, CallOptions, ClientSetup, Hedge, OnProgress, Timeout
from reliable.config import Dialect
from reliable.errors import RequestError
from reliable.mapping import MapProgress, MapWindow, total_of
from reliable.open_calls import OpenCall
from reliable.payload import Codec, encode_call
from reliable.protocol.events import Submit
from reliable.readiness import PING, Readiness, check_answers_mmi, question_options
from reliable.sync.mapping import Items, MapResults
from reliable.sync.pending import PendingCall
from reliable.sync.pump import ClientPump
from reliable.sync.streams import Stream
from reliable.types import Frames
from reliable.wire.mdp import check_service

__all__ = ["ClientCalls", "ClientView", "ServiceProxy"]


class ClientCalls(ABC):
    """The ways to make calls, under given options."""

    def __init__(self, setup: ClientSetup, options: CallOptions) -> None:
        self._setup = setup
        self._options = options

    @abstractmethod
    def _usable(self) -> ClientPump:
        """A pump that calls can be made with."""

    @abstractmethod
    def _current(self) -> ClientPump | None:
        """The pump that calls were made with, if there is one."""

    @abstractmethod
    def _owner(self) -> object:
        """What must not be collected while calls are open."""

    def request(
        self,
        service: str,
        *frames: bytes,
        timeout: Timeout = UNSET,
        idempotent: bool | None = None,
        fail_fast: bool | None = None,
        hedge: Hedge = UNSET,
        on_progress: OnProgress | None = None,
        trace: bytes | None = None,
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
            hedge: Send a second attempt while the first is waited for; None: do not. Needs ``idempotent=True``.
            on_progress: Gets the frames of each ``request.progress(...)`` of the handler, as a list, in this thread.
                What it throws is logged.
            trace: W3C trace context to send along. Not given: of ``trace_source``, else of the request being handled.

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
        options = self._options.changed(
            timeout=timeout,
            idempotent=idempotent,
            fail_fast=fail_fast,
            hedge=hedge,
            on_progress=on_progress,
            trace=trace,
        )
        return self._made(service, frames, options).frames()

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
        codec = self._codec()
        return self._made(service, encode_call(codec, args, kwargs), self._options).value(codec)

    def stream(self, service: str, /, *args: object, **kwargs: object) -> Stream:
        """Call a service that answers in parts, and read them as they come.

        The call is made here; its timeout bounds it up to the last part. It is never hedged.

        Returns:
            An iterator; use it in a ``with`` block, or read it to its end.

        Raises:
            PayloadError: Arguments that the codec cannot write.
            ClosedError: The client is closed.
        """
        codec, options = self._codec(), self._options
        submit = self._submit(service, encode_call(codec, args, kwargs), options, hedged=False)
        parts_max = self._setup.config.limits.stream_parts_max
        return Stream(self._usable(), submit, codec, options.on_progress, parts_max, self._owner())

    def submit(self, service: str, /, *args: object, **kwargs: object) -> PendingCall:
        """Make a call and do not wait for it: it goes on in the background and ends by its deadline.

        Returns:
            A future of what ``call`` would return.

        Raises:
            PayloadError: Arguments that the codec cannot write.
            ClosedError: The client is closed.
        """
        codec, options = self._codec(), self._options
        submit = self._submit(service, encode_call(codec, args, kwargs), options)
        return PendingCall(self._usable(), submit, codec, options.on_progress, self._owner())

    def map(
        self,
        service: str,
        items: Items,
        /,
        *,
        ordered: bool = True,
        in_flight: int = 64,
        on_progress: MapProgress | None = None,
        return_errors: bool = False,
        timeout: Timeout = UNSET,
        idempotent: bool | None = None,
        fail_fast: bool | None = None,
        hedge: Hedge = UNSET,
    ) -> MapResults:
        """Call a service once for each item, which is its only argument, several at once.

        Args:
            service: Its name.
            items: Taken only as fast as calls can be made.
            ordered: Give the results in the order of the items; False: as they come.
            in_flight: Calls that may be open at once.
            on_progress: Called as ``on_progress(done, total)`` with each result; total is None if ``items`` has no
                length.
            return_errors: Give a ``RequestError`` in place of the result. False: the first one is raised, after the
                open calls were cancelled.
            timeout: Seconds for each call; the other options are those of ``request``.
            idempotent: As ``request``.
            fail_fast: As ``request``.
            hedge: As ``request``.

        Returns:
            An iterator; closing it cancels what is open.

        Raises:
            ValueError: ``in_flight`` is less than 1, or a bad service name.
        """
        check_service(service)
        options = self._options.changed(timeout=timeout, idempotent=idempotent, fail_fast=fail_fast, hedge=hedge)
        codec = options.codec or self._setup.codec
        window = MapWindow(
            ordered=ordered,
            in_flight=in_flight,
            total=total_of(items),
            on_progress=on_progress,
            return_errors=return_errors,
        )
        return MapResults(
            self._usable,
            lambda item: self._submit(service, encode_call(codec, [item], {}), options),
            items,
            window,
            codec,
            options.on_progress,
        )

    def send(self, service: str, /, *args: object, **kwargs: object) -> None:
        """Call a service without a reply: returns as soon as a broker holds the call.

        Whether it runs, and how it ends, is not told.

        Raises:
            ValueError: The dialect has no such calls: all but ``"mdp"``.
            RequestError: As ``request``, up to the moment that the broker has it.
        """
        if self._setup.config.dialect is not Dialect.MDP:
            raise ValueError(
                f"the dialect {self._setup.config.dialect.value!r} has no one-way calls: use call or submit"
            )
        body = encode_call(self._codec(), args, kwargs)
        self._usable().call(self._submit(service, body, self._options, one_way=True)).frames()

    def cancel(self, call_id: bytes) -> bool:
        """End an open call of this client; whoever waits for it gets ``RequestAbandoned``.

        Args:
            call_id: From ``submit`` or ``stream``, or from an observation.

        Returns:
            Whether it was open.
        """
        pump = self._current()
        return pump is not None and pump.cancel(call_id)

    def ping(self, *, timeout: Timeout = UNSET) -> float:
        """Seconds of a round trip to the broker; the first one includes connecting.

        Raises:
            ValueError: The dialect has no broker to ask.
            RequestError: As ``request``.
        """
        check_answers_mmi(self._setup.config.dialect, "ping")
        began = time.monotonic()
        self._ask(PING, timeout)
        return time.monotonic() - began

    def wait_ready(self, service: str, workers: int = 1, *, timeout: Timeout = UNSET) -> None:
        """Wait until the broker knows live workers for a service; the broker itself may still be to come.

        Args:
            service: Its name.
            workers: How many; above 1 only with a broker of this library.
            timeout: Seconds in all.

        Raises:
            ServiceNotFound: Time is up, and there are too few.
            BrokerUnreachable, RequestTimeout: Time is up, and no broker answered.
            ValueError: The dialect has no broker to ask, or the broker does not count workers.
        """
        readiness = Readiness(self._setup.config.dialect, service, workers)
        timeout = self._timeout(timeout)
        end = float("inf") if timeout is None else time.monotonic() + timeout
        while (left_s := end - time.monotonic()) > 0:
            try:
                if readiness.answered(self._ask(readiness.question(), left_s)):
                    return
            except RequestError as error:
                readiness.failed(error, time_is_up=time.monotonic() >= end)
            time.sleep(max(0.0, min(readiness.pause_s(), end - time.monotonic())))
        raise readiness.too_late()

    def service(self, name: str) -> ServiceProxy:
        """A service as an object: ``client.service("math").add(1, 2)`` is ``client.call("math.add", 1, 2)``.

        Raises:
            ValueError: A bad name.
        """
        return ServiceProxy(self, name)

    def options(
        self,
        *,
        timeout: Timeout = UNSET,
        idempotent: bool | None = None,
        fail_fast: bool | None = None,
        hedge: Hedge = UNSET,
        codec: Codec | None = None,
        on_progress: OnProgress | None = None,
        trace: bytes | None = None,
    ) -> ClientView:
        """The same client under other options: ``client.options(timeout=2).call("add", 1, 2)``.

        Args:
            timeout: Seconds in all; None is no limit.
            idempotent: As ``request``.
            fail_fast: As ``request``.
            hedge: As ``request``.
            codec: In place of the client's.
            on_progress: As ``request``; for ``submit`` it is called in the client's background thread, for ``stream``
                and ``map`` in the one that reads.
            trace: As ``request``.
        """
        options = self._options.changed(
            timeout=timeout,
            idempotent=idempotent,
            fail_fast=fail_fast,
            hedge=hedge,
            codec=codec,
            on_progress=on_progress,
            trace=trace,
        )
        return ClientView(self, options)

    # --- inner ------------------------------------------------------------------------------------

    def _codec(self) -> Codec:
        return self._options.codec or self._setup.codec

    def _timeout(self, timeout: Timeout) -> float | None:
        """``timeout`` if it is given, else that of the options, else the client's."""
        return self._setup.timeout_of(self._options.changed(timeout=timeout))

    def _submit(
        self,
        service: str,
        body: Frames | tuple[object, ...],
        options: CallOptions,
        *,
        one_way: bool = False,
        hedged: bool = True,
    ) -> Submit:
        return self._setup.submit(service, body, options, time.monotonic(), one_way=one_way, hedged=hedged)

    def _made(self, service: str, body: Frames | tuple[object, ...], options: CallOptions) -> OpenCall:
        submit = self._setup.submit(service, body, options, time.monotonic())
        return self._usable().call(submit, options.on_progress)

    def _ask(self, question: tuple[str, bytes], timeout: Timeout) -> Frames:
        service, body = question
        return self._made(service, [body], question_options(self._timeout(timeout))).frames()


class ClientView(ClientCalls):
    """A client under other options; from ``Client.options``. It is open as long as its client is."""

    def __init__(self, client: ClientCalls, options: CallOptions) -> None:
        super().__init__(client._setup, options)
        self._client = client

    def _usable(self) -> ClientPump:
        return self._client._usable()

    def _current(self) -> ClientPump | None:
        return self._client._current()

    def _owner(self) -> object:
        return self._client._owner()


class ServiceProxy:
    """A service, and by its attributes those that are named after it; from ``Client.service``.

    A method of the service that is called ``options`` is hidden by ours: use ``Client.call("math.options")``.
    """

    def __init__(self, calls: ClientCalls, name: str) -> None:
        self._calls = calls
        self._name = check_service(name).decode()

    def __call__(self, /, *args: object, **kwargs: object) -> object:
        """Call the service itself, like ``Client.call``."""
        return self._calls.call(self._name, *args, **kwargs)

    def options(
        self,
        *,
        timeout: Timeout = UNSET,
        idempotent: bool | None = None,
        fail_fast: bool | None = None,
        hedge: Hedge = UNSET,
        codec: Codec | None = None,
        on_progress: OnProgress | None = None,
        trace: bytes | None = None,
    ) -> ServiceProxy:
        """The same service under other options; see ``Client.options``."""
        view = self._calls.options(
            timeout=timeout,
            idempotent=idempotent,
            fail_fast=fail_fast,
            hedge=hedge,
            codec=codec,
            on_progress=on_progress,
            trace=trace,
        )
        return ServiceProxy(view, self._name)

    def __getattr__(self, name: str) -> ServiceProxy:
        if name.startswith("_"):
            # Whoever looks for them (copy, pickle, a debugger) must not end up with a remote call.
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return ServiceProxy(self._calls, f"{self._name}.{name}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"
