"""One conversation each, as state machines without sockets, clock or randomness."""
