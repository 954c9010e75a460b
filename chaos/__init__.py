"""Chaos: real and simulated faults, and the checks that no call hangs."""
