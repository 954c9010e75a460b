"""Many conversations, with ids, limits and counters; still without sockets, clock or randomness of their own."""
