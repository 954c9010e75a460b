"""Where the time of the broker's engine goes: the same requests as under ``benchmarks.broker``, without any socket.

What the load would send is made up here, frame by frame, and handed to the engine; what the engine wants sent is taken
out of its outbox and answered. So the figures are of the decisions alone, and do not depend on libzmq.
"""

from __future__ import annotations

import cProfile
import pstats
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

from brokers.config import BrokerConfig
from brokers.majordomo import MajordomoEngine
from reliable.types import Frames
from reliable.wire.extension import (
    RESULT_BYTES,
    TOKEN_BYTES,
    CallFlag,
    CallFrame,
    CallKind,
    Hello,
    ReadyExtension,
    Role,
    ServiceOffer,
)
from reliable.wire.mdp import ClientRequest, Version, WorkerReady
from reliable.wire.mmi import hello_request

__all__ = ["KINDS", "Run", "credit", "plain", "profile"]

Run: TypeAlias = Callable[[int], int]
"""Makes at least so many requests, and returns how many it made."""

KINDS: Final = ("plain", "credit")
_LIFE: Final = b"benchlif"
_SERVICE: Final = b"echo"
_BODY: Final = b"x" * 32
_CLIENTS: Final = 4
_WORKERS: Final = 32
_IN_FLIGHT: Final = 200
_CREDIT: Final = 64
_TURN_S: Final = 0.001
"""How much time goes by from one batch of messages to the next."""
_DEADLINE_MS: Final = 30_000
_ROWS: Final = 40


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0


def _turn(engine: MajordomoEngine, clock: _Clock, messages: list[Frames]) -> Iterator[Frames]:
    """Hand over a batch; what the engine wants sent then."""
    for message in messages:
        engine.receive(message, clock.now)
    clock.now += _TURN_S
    due = engine.next_deadline()
    if due is not None and due <= clock.now:
        engine.timers(clock.now)
    while engine.outbox:
        yield engine.outbox.popleft()


def plain() -> Run:
    """MDP 0.1 on both sides: 32 workers, 200 requests under way."""
    clock = _Clock()
    engine = MajordomoEngine(BrokerConfig(), life=_LIFE, now=clock.now)
    for number in range(_WORKERS):
        engine.receive([b"\0w%03d" % number, b"", b"MDPW01", b"\1", _SERVICE], clock.now)

    def run(requests: int) -> int:
        begun = done = 0
        messages: list[Frames] = []
        while done < requests:
            while begun < done + _IN_FLIGHT:
                messages.append([b"\0c%03d" % (begun % _CLIENTS), b"", b"MDPC01", _SERVICE, _BODY])
                begun += 1
            answers: list[Frames] = []
            for message in _turn(engine, clock, messages):
                if message[2] == b"MDPC01":
                    done += 1
                elif message[3] == b"\2":
                    answers.append([message[0], b"", b"MDPW01", b"\3", *message[4:]])
            messages = answers
        while messages:
            out = list(_turn(engine, clock, messages))
            done += sum(1 for message in out if message[2] == b"MDPC01")
            messages = [[m[0], b"", b"MDPW01", b"\3", *m[4:]] for m in out if m[2] == b"MDPW01" and m[3] == b"\2"]
        return done

    return run


def credit() -> Run:
    """Our own peers: one client, one worker, 64 requests in its hands."""
    clock = _Clock()
    engine = MajordomoEngine(BrokerConfig(), life=_LIFE, now=clock.now)
    client, worker = b"\0cli0", b"\0wrk0"
    for peer, role in ((client, Role.CLIENT), (worker, Role.WORKER)):
        engine.receive([peer, *hello_request(Hello(role, bytes([role]) * 16).encode())], clock.now)
    offer = ReadyExtension(bytes([Role.WORKER]) * 16, _CREDIT, (ServiceOffer(_SERVICE, False),))
    engine.receive([worker, *WorkerReady(Version.MDP02, _SERVICE, offer.encode()).encode()], clock.now)
    engine.outbox.clear()
    calls = 0

    def call() -> Frames:
        nonlocal calls
        calls += 1
        now_ms = round((clock.now - 1000.0) * 1000)
        frame = CallFrame(
            CallKind.SUBMIT,
            CallFlag.NONE,
            1,
            struct.pack(">QQ", 1, calls),
            bytes([Role.CLIENT]) * 16,
            _LIFE,
            now_ms + _DEADLINE_MS,
            now_ms,
            bytes(16),
        )
        return [client, *ClientRequest(Version.MDP02, _SERVICE, [_BODY], [frame.encode()]).encode()]

    def run(requests: int) -> int:
        done = 0
        messages = [call() for _ in range(_CREDIT)]
        while messages:
            answers: list[Frames] = []
            for message in _turn(engine, clock, messages):
                if message[0] == client:
                    done += 1
                    if done + _CREDIT <= requests:
                        answers.append(call())
                elif message[2] == b"\2":
                    report = message[3][:TOKEN_BYTES] + RESULT_BYTES
                    answers.append([worker, b"MDPW02", b"\4", report, *message[4:]])
            messages = answers
        return done

    return run


def profile(kind: str, requests: int) -> list[str]:
    """Own time and number of calls of each function of the engine, per request, the dearest first.

    Args:
        kind: One of ``KINDS``.
        requests: How many; as many come before them.
    """
    run = plain() if kind == "plain" else credit()
    run(requests)
    began = time.thread_time()
    made = run(requests)
    bare_us = (time.thread_time() - began) / made * 1e6
    profiler = cProfile.Profile()
    profiler.enable()
    made = run(requests)
    profiler.disable()
    # Typed by typeshed as something else than it is at run time.
    found = vars(pstats.Stats(profiler))["stats"]
    rows = [(own, count, where) for where, (_, count, own, _, _) in found.items()]
    rows.sort(reverse=True)
    total = sum(own for own, _, _ in rows)
    shown = [f"{kind}: {bare_us:.1f} us per request without the profiler; under it, per request and of the whole:"]
    return shown + [
        f"  {own / made * 1e6:6.2f} us {100 * own / total:5.1f} % {count / made:6.2f} x  {_name(*where)}"
        for own, count, where in rows[:_ROWS]
    ]


def _name(file: str, line: int, function: str) -> str:
    if file == "~":
        return function
    path = Path(file)
    return f"{path.parent.name}/{path.name}:{line} {function}"
