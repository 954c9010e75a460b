"""Measurements; not installed. Each says what it compares, and shows by a control how much of it is noise."""
