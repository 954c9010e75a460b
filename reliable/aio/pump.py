"""An engine on an event loop: descriptors by ``add_reader``, one timer, no task of its own.

The sockets are plain ones. Their descriptors signal edges only, so after anything that touched a socket the driver goes
on until every socket was read empty (``reliable.transport``); then the loop may sleep.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import attrs

from reliable.calling import ClientSetup, abandoned
from reliable.driver import Driver
from reliable.engine.base import Engine
from reliable.engine.client import ClientCounters, ClientSnapshot
from reliable.errors import ClosedError, LocalProtocolError
from reliable.protocol.events import (
    AbandonAll,
    CallFinished,
    CallProgress,
    CancelCall,
    ClientEffect,
    ClientEvent,
    LinkClosed,
    LinkOpened,
    Received,
    Submit,
    Unsent,
)
from reliable.transport import LinkTable, Waker

__all__ = ["AsyncClientPump", "LoopDriver", "LoopWait"]

EventT = TypeVar("EventT")
EffectT = TypeVar("EffectT")


class LoopWait:
    """Lets an event loop wait on descriptors, and runs ``turn`` after one became readable.

    Args:
        loop: The loop; everything but ``wake`` is called in its thread.
        turn: What to run.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: Callable[[], None]) -> None:
        self._loop = loop
        self._turn = turn
        self._waker = Waker()
        self.wake: Callable[[], None] = self._waker.wake
        self.watch(self._waker.fileno(), self._waker.clear)

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """From now on call ``ready`` when ``fd`` becomes readable."""
        self._loop.add_reader(fd, self._on_readable, ready)

    def unwatch(self, fd: int) -> None:
        """No longer."""
        self._loop.remove_reader(fd)

    def _on_readable(self, ready: Callable[[], None]) -> None:
        ready()
        self._turn()

    def close(self) -> None:
        """Give the descriptors back."""
        self.unwatch(self._waker.fileno())
        self._waker.close()


class LoopDriver(Generic[EventT, EffectT]):
    """A driver with its links, its descriptors and its timer on the running loop.

    Args:
        engine: Decides.
        perform: Carries out every effect that is not about a link.
        failed: Told when the engine or an effect threw; the driver must be closed then.
        make_links: Makes the links, given who watches and who wakes.
        turned: Called after each turn.
    """

    def __init__(
        self,
        engine: Engine[EventT | LinkOpened | LinkClosed | Received | Unsent, EffectT],
        perform: Callable[[EffectT], None],
        failed: Callable[[BaseException], None],
        make_links: Callable[[LoopWait], LinkTable],
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._wait = LoopWait(self.loop, self.turn)
        self.wake = self._wait.wake
        self._links = make_links(self._wait)
        self._driver: Driver[EventT, EffectT] = Driver(engine, self._links, perform, time.monotonic)
        self._failed = failed
        self._turned = turned
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._closed = False

    def turn(self) -> None:
        """Let the engine have what has arrived; called by the loop, so nothing is raised."""
        try:
            self._run(None)
        except Exception as error:
            self._failed(error)

    def handle(self, event: EventT) -> None:
        """Feed one event. Whatever it throws, except for misuse, leaves an engine that cannot be trusted."""
        try:
            self._run(event)
        except LocalProtocolError:
            raise
        except BaseException as error:
            self._failed(error)
            raise

    def _run(self, event: EventT | None) -> None:
        if self._closed:
            return
        if self._busy:
            # From within an effect: a loop may run a new task at once. The engine must not be entered twice.
            self.loop.call_soon(self._run, event)
            return
        self._busy = True
        try:
            if event is not None:
                self._driver.handle(event)
            else:
                self._driver.turn()
        finally:
            self._busy = False
        self._arm()
        self._turned()

    def _arm(self) -> None:
        """Keep a timer that goes off in time; one that is early does no harm, and moving it each time costs more."""
        wait_s = self._driver.wait_s()
        if wait_s is None:
            return
        when = self.loop.time() + wait_s
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.turn()

    def stop(self) -> None:
        """Close every link and wait on nothing any more."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._links.close_all()
        self._wait.close()

    async def close(self) -> None:
        """``stop``, and give back what takes a moment, without holding the loop up."""
        self.stop()
        await self.loop.run_in_executor(None, self._links.shutdown)

    def close_now(self) -> None:
        """``close`` for when there is no loop to wait on."""
        self.stop()
        self._links.shutdown()


class AsyncClientPump:
    """One life of an asyncio client: an engine, its links, and the futures of the tasks that wait.

    Args:
        setup: The client's arguments.
    """

    def __init__(self, setup: ClientSetup) -> None:
        self._engine = setup.engine()
        limits = setup.config.limits

        def make_links(wait: LoopWait) -> LinkTable:
            return LinkTable(
                setup.config.transport,
                wait,
                wait.wake,
                message_bytes_max=limits.message_bytes_max,
                received_messages_max=2 * limits.calls_in_flight_max,
            )

        self._driver: LoopDriver[ClientEvent, ClientEffect] = LoopDriver(
            self._engine, self._perform, self._on_failure, make_links
        )
        self.loop = self._driver.loop
        self._calls: dict[bytes, asyncio.Future[CallFinished]] = {}
        self._over = ""
        """Why no call can be made any more."""
        self._released = False

    async def call(self, submit: Submit) -> CallFinished:
        """Make a call and wait for its end.

        Raises:
            ClosedError: The pump is over.
            asyncio.CancelledError: Passed through; the call is cancelled, others are not touched.
        """
        if self._over:
            raise ClosedError(self._over)
        future: asyncio.Future[CallFinished] = self.loop.create_future()
        self._calls[submit.call_id] = future
        try:
            self._driver.handle(submit)
            return await future
        finally:
            if self._calls.pop(submit.call_id, None) is not None and not self._over:
                self._driver.handle(CancelCall(submit.call_id))

    def _perform(self, effect: ClientEffect) -> None:
        if isinstance(effect, CallFinished):
            future = self._calls.pop(effect.call_id, None)
            if future is not None and not future.done():
                future.set_result(effect)
        else:
            assert isinstance(effect, CallProgress), effect

    def _on_failure(self, error: BaseException) -> None:
        self._end_all(f"the client was interrupted at work by {type(error).__name__}: {error}")
        self._driver.stop()

    def _end_all(self, reason: str) -> None:
        self._over = reason
        for call_id, future in self._calls.items():
            if not future.done():
                future.set_result(abandoned(call_id, reason))
        self._calls.clear()

    @property
    def over(self) -> bool:
        """Whether no call can be made any more."""
        return bool(self._over)

    def stats(self) -> ClientCounters:
        """A copy of the counters."""
        return attrs.evolve(self._engine.counters)

    def snapshot(self) -> ClientSnapshot:
        """What the client holds."""
        return self._engine.snapshot()

    async def close(self) -> None:
        """End all calls and give everything back."""
        if not self._released:
            self._released = True
            if not self._over:
                self._driver.handle(AbandonAll())
                self._end_all("the client is closed")
            await self._driver.close()

    def close_now(self) -> None:
        """``close`` for when the loop is gone."""
        if not self._released:
            self._released = True
            self._over = self._over or "the client's event loop is closed"
            self._driver.close_now()
