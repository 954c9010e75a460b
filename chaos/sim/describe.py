"""Messages in words, for traces that people read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from reliable.errors import RemoteProtocolError
from reliable.wire.extension import (
    TOKEN_BYTES,
    AnswerFrame,
    CallFrame,
    Delivery,
    Hello,
    HelloAnswer,
    ReadyExtension,
    Report,
)
from reliable.wire.mdp import (
    ClientReply,
    ClientRequest,
    WorkerReady,
    WorkerReply,
    WorkerRequest,
    decode_at_broker,
    decode_at_worker,
)

__all__ = ["describe_from_broker", "describe_to_broker"]

FrameT = TypeVar("FrameT")
ValueT = TypeVar("ValueT")


def describe_to_broker(frames: Sequence[bytes]) -> str:
    """What a client or worker says."""
    try:
        command = decode_at_broker(frames)
    except RemoteProtocolError as error:
        return f"invalid ({error})"
    match command:
        case ClientRequest(service=service, body=body, stack=stack):
            words = f"request {_text(service)} {_body(body)}"
            if service == b"mmi.reliable" and body:
                words = f"hello {_tried(Hello.decode, body[0], _hello)}"
            return f"{words} {_tried(CallFrame.decode, stack[-1], _call)}" if stack else words
        case WorkerReady(service=service, extension=extension):
            return f"READY {_text(service)} {_tried(ReadyExtension.decode, extension, _ready) if extension else ''}"
        case WorkerReply(address=address, body=body, final=final):
            kind = "final" if final else "partial"
            return f"{kind} reply {_tried(Report.decode, address, _report)} {_body(body)}"
    return type(command).__name__


def describe_from_broker(frames: Sequence[bytes]) -> str:
    """What a broker says."""
    try:
        command = decode_at_worker(frames)
    except RemoteProtocolError as error:
        return f"invalid ({error})"
    match command:
        case ClientReply(service=service, body=body, stack=stack):
            if service == b"mmi.reliable":
                return f"hello answer {_body(body[:1])} {_tried(HelloAnswer.decode, body[1:], lambda a: a.life.hex())}"
            words = f"reply {_text(service)} {_body(body)}"
            return f"{words} {_tried(AnswerFrame.decode, stack[-1], _answer)}" if stack else words
        case WorkerRequest(address=address, body=body):
            return f"REQUEST {_tried(Delivery.decode, address, _delivery)} {_body(body)}"
    return type(command).__name__


def _tried(decode: Callable[[FrameT], ValueT], frame: FrameT, show: Callable[[ValueT], str]) -> str:
    try:
        return show(decode(frame))
    except RemoteProtocolError:
        return repr(frame)


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "backslashreplace")


def _body(body: Sequence[bytes]) -> str:
    return "[" + " | ".join(_text(frame[:24]) for frame in body) + "]"


def _token(token: bytes) -> str:
    return f"token {token[: TOKEN_BYTES // 2].hex()[:6]}.{int.from_bytes(token[TOKEN_BYTES // 2 :], 'big')}"


def _call(call: CallFrame) -> str:
    flags = call.flags.name or "-"
    return (
        f"{call.kind.name} {call.call_id.hex()[:8]} attempt {call.attempt} {flags} for {call.life.hex()[:6]} "
        f"due {call.deadline_ms} ms"
    )


def _answer(answer: AnswerFrame) -> str:
    return (
        f"{answer.status.name} {answer.call_id.hex()[:8]} attempt {answer.attempt} of {answer.life.hex()[:6]} "
        f"{answer.outcome.name} {answer.place.name} after {answer.deliveries} deliveries"
    )


def _delivery(delivery: Delivery) -> str:
    return (
        f"{delivery.kind.name} {_token(delivery.token)} {delivery.call_id.hex()[:8]} attempt {delivery.attempt} "
        f"delivery {delivery.delivery} {delivery.flags.name or '-'} due {delivery.deadline_ms} ms"
    )


def _report(report: Report) -> str:
    executed = "" if report.executed else ", not executed"
    return f"{report.kind.name} {_token(report.token)} detail {report.detail}{executed}"


def _ready(ready: ReadyExtension) -> str:
    tokens = ", ".join(_token(token) for token in ready.tokens) or "no tokens"
    return f"credit {ready.credit}, last life {ready.last_life.hex()[:6]}, {tokens}"


def _hello(hello: Hello) -> str:
    return f"of {hello.role.name.lower()} {hello.instance.hex()[:8]}"
