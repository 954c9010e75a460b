"""Brokers that people run: Majordomo (7/MDP and 18/MDP on one socket)."""
