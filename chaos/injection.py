"""The rule for faults: each one proves that it happened, and one that cannot happen here is named, never passed over.

A machine may lack what a fault needs: no ``nft``, no user namespaces, no Toxiproxy. Code that finds so raises
``NotInjected``. Whoever runs the faults either fails (``faults_required()``: on a machine that must be able to), or
goes on and prints one line "not injected: …" at the end. A fault that was switched on and left no trace is another
matter: ``FaultUnproven``, a failure everywhere, as a test that passed under it says nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from reliable.errors import ReliableError

__all__ = ["REQUIRE_VARIABLE", "FaultUnproven", "NotInjected", "faults_required", "not_injected_line"]

REQUIRE_VARIABLE = "RELIABLE_REQUIRE_FAULTS"
"""Environment variable; set (and not "0"), a fault that cannot be injected is a failure."""


class NotInjected(ReliableError):
    """This machine cannot inject a fault.

    Attributes:
        fault: What is missing, in a few words.
        reason: Why, in a few words.
    """

    def __init__(self, fault: str, reason: str) -> None:
        super().__init__(f"{fault} ({reason})")
        self.fault = fault
        self.reason = reason


class FaultUnproven(ReliableError):
    """A fault was switched on, but nothing shows that it happened."""


def faults_required(environ: Mapping[str, str] | None = None) -> bool:
    """Whether a fault that cannot be injected must be a failure."""
    value = (os.environ if environ is None else environ).get(REQUIRE_VARIABLE, "")
    return value.strip() not in ("", "0")


def not_injected_line(absences: Iterable[NotInjected]) -> str:
    """The one line that names all that is missing, each once; empty if nothing is."""
    texts = sorted({str(absence) for absence in absences})
    return f"not injected: {'; '.join(texts)}" if texts else ""
