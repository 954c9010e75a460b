"""Roles: one process that serves a contestant, and one that calls it."""

from __future__ import annotations

import time
from typing import Any

from reliable.bench import peers_others, peers_ours
from reliable.bench.child import Channel

__all__ = ["client", "server"]


def server(channel: Channel, stage: str, url: str = "") -> None:
    """Serve.

    Args:
        channel: To the command.
        stage: A name of ``STAGES``.
        url: Of the first process of the contestant, for those after it.
    """
    {**peers_ours.STAGES, **peers_others.STAGES}[stage](channel, url)


def client(channel: Channel, caller: str, url: str, body_bytes: int) -> None:
    """Make calls when asked to: ``{"calls": N}`` one after the other, or with ``"in_flight": M`` many at a time.

    Args:
        channel: To the command.
        caller: A name of ``CALLERS``.
        url: Whom it calls.
        body_bytes: Size of each request and its reply.
    """
    made = {**peers_ours.CALLERS, **peers_others.CALLERS}[caller](url)
    body = bytes(body_bytes)
    made.singly(20, body)
    channel.say(ready=True)

    def do(command: dict[str, Any]) -> dict[str, Any]:
        calls, in_flight = command["calls"], command.get("in_flight")
        begun, cpu = time.perf_counter_ns(), time.process_time_ns()
        each: list[int] = []
        if in_flight is None:
            each = made.singly(calls, body)
        else:
            made.together(calls, in_flight, body)
        return {
            "each_ns": each,
            "whole_ns": time.perf_counter_ns() - begun,
            "cpu_ns": time.process_time_ns() - cpu,
        }

    channel.serve(do)
