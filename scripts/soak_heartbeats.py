"""Soak the heartbeats: hundreds of workers at a broker under load for minutes, and not one heartbeat missed.

    .venv/bin/python scripts/soak_heartbeats.py                       # five minutes, 500 workers
    .venv/bin/python scripts/soak_heartbeats.py --seconds 20 --workers 100 --load 0.8

The broker, the workers (in four processes) and the load are processes of their own. One worker beats every 20 ms, the
others every second. The load is a share of what the broker was first measured to do, with floods on top of it. Missed
is a gap of more than two intervals, at the receiver, that is explained neither by a pause of the sender nor by a
machine that had no processor free; the figures tell both kinds. On a machine with too few processors calls are refused,
too, as a broker refuses what it cannot queue; that is told and is no failure of the heartbeats.

Exit code 0: none was missed, and no worker was taken for stuck or gone. 1: not so.
"""

from __future__ import annotations

import argparse
import sys

from tests.support.heartbeats import Run, soak


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long")
    parser.add_argument("--workers", type=int, default=500, help="that beat at the interval")
    parser.add_argument("--interval-s", type=float, default=1.0, help="of all workers but one, and of the broker")
    parser.add_argument("--fast-s", type=float, default=0.02, help="interval of that one")
    parser.add_argument("--load", type=float, default=0.6, help="share of what the broker can do")
    parser.add_argument("--flood", type=int, default=2_000, help="requests that come at once, every two seconds")
    found = parser.parse_args(argv)
    if found.seconds <= 0 or found.workers < 4 or not 0 < found.load <= 1 or found.flood < 0:
        parser.error("more than no time, at least four workers, and a load between 0 and 1")
    return found


def main(argv: list[str]) -> int:
    """Run it; the exit code."""
    options = _arguments(argv)
    outcome = soak(
        Run(
            seconds=options.seconds,
            workers=options.workers,
            interval_s=options.interval_s,
            fast_s=options.fast_s,
            load=options.load,
            flood=options.flood,
            measure_s=5.0,
        )
    )
    print(outcome, flush=True)
    for gap in outcome.missed:
        print(f"missed: {gap.service}, silent for {(gap.end - gap.begin) / gap.interval_s:.2f} intervals", flush=True)
    return 0 if not outcome.missed and outcome.stuck == outcome.gone == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
