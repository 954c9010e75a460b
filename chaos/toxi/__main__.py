"""``python -m chaos.toxi``: have the Toxiproxy server program at hand, and say where it is."""

from __future__ import annotations

import sys

from chaos.injection import NotInjected, faults_required, not_injected_line
from chaos.toxi.server import toxiproxy_binary


def main() -> int:
    """Exit code 0, or 1 if there is no server and the environment demands one."""
    try:
        binary = toxiproxy_binary()
    except NotInjected as absence:
        print(not_injected_line([absence]), file=sys.stderr)
        return 1 if faults_required() else 0
    print(f"toxiproxy-server: {binary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
