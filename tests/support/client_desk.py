"""A client engine on a desk: events in by hand, effects out as short lines that a test can compare."""

from __future__ import annotations

from collections.abc import Sequence

from reliable.config import ClientConfig, HedgePolicy
from reliable.engine.client import ClientEngine
from reliable.errors import Outcome, RequestError
from reliable.protocol.events import (
    CallFinished,
    CallProgress,
    ClientEffect,
    CloseLink,
    LinkOpened,
    OpenLink,
    Received,
    Send,
    Submit,
)
from reliable.protocol.link import Ready
from reliable.status import STATUS_TABLE, Retry, Status
from reliable.types import Frames
from reliable.wire.extension import (
    HELLO_SERVICE,
    AnswerFrame,
    CallFlag,
    CallFrame,
    Hello,
    HelloAnswer,
    Place,
)
from reliable.wire.mdp import ClientReply, ClientRequest, Version, decode_at_broker
from reliable.wire.mmi import TIME_QUERY, time_answer
from tests.support.engine_desk import EngineDesk, call_id, name_of

__all__ = ["CLIENT", "Desk", "answer_frames", "describe", "hello_frames", "life_id"]

CLIENT = b"client-instance!"


def life_id(name: str) -> bytes:
    """8 bytes likewise."""
    return name.encode().ljust(8, b".")


def answer_frames(
    name: str,
    status: Status,
    life: str = "L1",
    *,
    attempt: int = 1,
    outcome: Outcome | None = None,
    place: Place = Place.UNSAID,
    retry_after_ms: int = 0,
    body: Sequence[bytes] = (b"",),
    service: bytes = b"echo",
) -> Frames:
    """What a broker sends about a call."""
    rule = STATUS_TABLE[status]
    said = outcome if outcome is not None else rule.outcome if rule.outcome is not None else Outcome.UNKNOWN
    frame = AnswerFrame(status, attempt, call_id(name), life_id(life), said, place, 0, retry_after_ms)
    final = rule.retry is not Retry.NOT_FINAL
    return ClientReply(Version.MDP02, service, list(body), [frame.encode()], final).encode()


def hello_frames(life: str = "L1", max_message_bytes: int = 0, code: bytes = b"200") -> Frames:
    """What a broker answers to a hello."""
    body = [code, *HelloAnswer(life_id(life), max_message_bytes).encode()] if code == b"200" else [code]
    return ClientReply(Version.MDP01, HELLO_SERVICE, body).encode()


def describe(effect: ClientEffect) -> str:
    """One effect as one line."""
    match effect:
        case OpenLink():
            return f"open {effect.link} {effect.address}"
        case CloseLink():
            return f"close {effect.link}" + (" linger" if effect.linger else "")
        case Send():
            return _describe_send(effect)
        case CallFinished():
            name = name_of(effect.call_id)
            if isinstance(effect.result, RequestError):
                assert effect.result.outcome is effect.outcome, "the error says something else than the effect"
                return f"end {name} {type(effect.result).__name__} {effect.outcome.name}"
            return f"end {name} {b'|'.join(effect.result).decode()}"
        case CallProgress():
            kind = "partial" if effect.partial else "progress"
            return f"{kind} {effect.call_id.rstrip(b'.').decode()} {b'|'.join(effect.body).decode()}"


def _describe_send(effect: Send) -> str:
    request = decode_at_broker(effect.frames)
    assert isinstance(request, ClientRequest)
    if request.service == HELLO_SERVICE and not request.stack:
        Hello.decode(request.body[0])
        return f"hello {effect.link}"
    if request.service == TIME_QUERY and not request.stack:
        return f"time {effect.link}"
    frame = CallFrame.decode(request.stack[-1])
    repeat = " repeat" if frame.flags & CallFlag.REPEAT else ""
    name = name_of(frame.call_id)
    return f"{frame.kind.name.lower()} {effect.link} {name}#{frame.attempt}{repeat}"


class Desk(EngineDesk[ClientEngine]):
    """The client of brokers of ours."""

    def __init__(
        self, *brokers: str, config: ClientConfig | None = None, u: float = 0.5, observer: list[object] | None = None
    ) -> None:
        engine = ClientEngine(
            brokers or ("a",),
            config or ClientConfig(),
            client_id=CLIENT,
            jitter=lambda: u,
            observer=observer.append if observer is not None else None,
        )
        super().__init__(engine, describe)

    def submit(
        self,
        name: str = "c",
        *,
        timeout: float | None = 30.0,
        idempotent: bool | None = None,
        fail_fast: bool = False,
        wants_progress: bool = False,
        body: Sequence[bytes] = (b"hi",),
        service: bytes = b"echo",
        one_way: bool = False,
        hedge: HedgePolicy | None = None,
    ) -> None:
        """The user calls; the hedge of call ``c`` is call ``c'``."""
        self.feed(
            Submit(
                call_id=call_id(name),
                service=service,
                body=list(body),
                deadline=None if timeout is None else self.now + timeout,
                idempotent=idempotent,
                fail_fast=fail_fast,
                wants_progress=wants_progress,
                one_way=one_way,
                hedge=hedge,
                hedge_id=call_id(f"{name}'") if hedge is not None else b"",
            )
        )

    def open(self, link: int, life: str = "L1", *, max_message_bytes: int = 0) -> None:
        """The link opens and the broker answers its hello."""
        self.feed(LinkOpened(link))
        self.feed(Received(link, hello_frames(life, max_message_bytes)))

    def answer(
        self,
        link: int,
        status: Status = Status.OK,
        name: str = "c",
        life: str = "L1",
        *,
        attempt: int = 1,
        outcome: Outcome | None = None,
        place: Place = Place.UNSAID,
        retry_after_ms: int = 0,
        body: Sequence[bytes] = (b"ok",),
        service: bytes = b"echo",
    ) -> None:
        """The broker answers."""
        self.feed(
            Received(
                link,
                answer_frames(
                    name,
                    status,
                    life,
                    attempt=attempt,
                    outcome=outcome,
                    place=place,
                    retry_after_ms=retry_after_ms,
                    body=body,
                    service=service,
                ),
            )
        )

    def tell_time(self, link: int, since_hello_s: float) -> None:
        """The broker answers the newest question about the time: so long ago was the hello by its clock."""
        requests = (decode_at_broker(sent.frames) for sent in reversed(self.frames) if sent.link == link)
        asked = next(each for each in requests if isinstance(each, ClientRequest) and each.service == TIME_QUERY)
        body = [b"200", *time_answer(asked.body[0], int(since_hello_s * 1000))]
        self.feed(Received(link, ClientReply(Version.MDP01, TIME_QUERY, body).encode()))

    def nothing_awaited(self) -> bool:
        """Whether nothing is due, but for the next look at some broker's clock."""
        looks = [entry.due for entry in self.engine._state.links.values() if isinstance(entry.state, Ready)]
        return self.engine.next_deadline() == min(looks, default=None)

    def last_call_frame(self) -> CallFrame:
        """Of the newest message about a call."""
        request = decode_at_broker(self.frames[-1].frames)
        assert isinstance(request, ClientRequest)
        return CallFrame.decode(request.stack[-1])
