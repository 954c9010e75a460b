"""Scenarios on real processes: what they consist of, how they are run, and how they are judged."""
