"""Request/reply over ZeroMQ that always ends: with its reply, or with an error that says what may have run."""
