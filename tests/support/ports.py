"""Addresses for tests that listen."""

from __future__ import annotations

from chaos.ports import free_port

__all__ = ["free_endpoint", "free_port"]


def free_endpoint() -> str:
    """An address on loopback where nobody listens."""
    return f"tcp://127.0.0.1:{free_port()}"
