"""Closing an asyncio client from where there is no loop, as at the end of a test."""

from __future__ import annotations

import asyncio
from typing import Final

from reliable.aio.client import AsyncClient

__all__ = ["close_async_client"]

_CLOSE_S_MAX: Final = 5.0


def close_async_client(client: AsyncClient) -> None:
    """Close a client whose loop does not run any more, or runs in another thread; bounded. Closed already: nothing.

    Raises:
        TimeoutError: Its loop runs in another thread and did not close it within 5 s.
    """
    pump = client._pump
    if pump is None or pump.loop.is_closed():
        _close_without_loop(client)
    elif not pump.loop.is_running():
        pump.loop.run_until_complete(client.close())
    else:
        asyncio.run_coroutine_threadsafe(client.close(), pump.loop).result(_CLOSE_S_MAX)


def _close_without_loop(client: AsyncClient) -> None:
    # Not asyncio.run: that would take away the loop which a plugin has set for the thread.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(client.close())
    finally:
        loop.close()
