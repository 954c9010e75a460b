"""Frames ↔ values. No state, no time, no logging."""
