"""Bytes as JSON values."""

from __future__ import annotations

import base64

__all__ = ["frame_value"]


def frame_value(frame: bytes) -> str | dict[str, str]:
    """A frame as JSON: a text if it is UTF-8, else ``{"base64": …}``, so that the two cannot be mixed up."""
    try:
        return frame.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(frame).decode()}
