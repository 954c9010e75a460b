"""The numbers on the wire never change their meaning."""

from __future__ import annotations

from reliable.errors import Outcome
from reliable.status import Status
from reliable.wire.kinds import CallFlag, CallKind, DeliveryKind, GiveBackReason, Place, ReportKind, Role


def test_the_numbers_of_every_kind_and_status_are_fixed() -> None:
    """A renumbered enumeration still round-trips, and talks nonsense to last week's peers."""
    assert [int(s) for s in Status] == [0, 1, 2, 3, 4, *range(16, 28)]
    assert [s.name for s in Status][5:8] == ["NO_SERVICE", "EXPIRED", "OVERLOADED"]
    assert {k.name: int(k) for k in CallKind} == {"SUBMIT": 1, "ATTACH": 2, "CANCEL": 3}
    assert {f.name: int(f) for f in CallFlag} == {
        "IDEMPOTENT": 1,
        "NOT_IDEMPOTENT": 2,
        "HEDGE": 4,
        "DURABLE": 8,
        "WANTS_PROGRESS": 16,
        "FAIL_FAST": 32,
        "REPEAT": 64,
        "ONE_WAY": 128,
    }
    assert {k.name: int(k) for k in DeliveryKind} == {"RUN": 0x10, "CANCEL": 0x11, "CREDIT_ACK": 0x12}
    assert [(k.name, int(k)) for k in ReportKind] == [
        ("RESULT", 0x20),
        ("ERROR", 0x21),
        ("PARTIAL", 0x22),
        ("STARTED", 0x23),
        ("PROGRESS", 0x24),
        ("GIVE_BACK", 0x25),
        ("CREDIT", 0x26),
    ]
    assert [p.name for p in Place] == [
        "UNSAID",
        "QUEUED",
        "QUEUED_NO_WORKER",
        "DELIVERED",
        "RUNNING",
        "STUCK",
        "LIMBO",
        "ENDED",
    ]
    assert [int(p) for p in Place] == list(range(8))
    assert [r.name for r in GiveBackReason] == [
        "DRAINING",
        "EXPIRED",
        "CANCELLED",
        "NO_SUCH_SERVICE",
        "FULL",
        "BAD_DELIVERY",
    ]
    assert [int(r) for r in GiveBackReason] == list(range(6))
    assert [(r.name, int(r)) for r in Role] == [("CLIENT", 1), ("WORKER", 2)]
    assert [(o.name, int(o)) for o in Outcome] == [("UNKNOWN", 0), ("NOT_EXECUTED", 1), ("EXECUTED", 2)]


def test_only_reports_that_end_the_token_free_the_slot() -> None:
    """A progress report taken for an end would hand the worker a second request."""
    assert {kind for kind in ReportKind if kind.final} == {ReportKind.RESULT, ReportKind.ERROR, ReportKind.GIVE_BACK}
