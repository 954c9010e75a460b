"""Something that takes connections and never says a word, as a process.

``python -m chaos.running.child_mute HOST PORT``; says "ready", then "accepted N" for each connection.
"""

from __future__ import annotations

import socket
import sys

__all__ = ["main"]

_KEPT_MAX = 200


def main(host: str, port: str) -> None:
    """Accept until killed."""
    kept: list[socket.socket] = []
    with socket.create_server((host, int(port))) as server:
        print("ready", flush=True)
        count = 0
        while True:
            kept.append(server.accept()[0])
            count += 1
            print(f"accepted {count}", flush=True)
            if len(kept) > _KEPT_MAX:
                kept.pop(0).close()


if __name__ == "__main__":
    main(*sys.argv[1:3])
