"""The blocking shell: threads and sockets around the engines."""
