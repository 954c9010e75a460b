"""The simulator: production engines on a virtual clock and a network with ZeroMQ's real loss model, from one seed.

No socket, no shell, no clock and no ambient randomness in here: two runs of one seed write the same trace.
"""
