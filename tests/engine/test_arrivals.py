"""The newest delivery of each life: what is said of it must be true for ever."""

from __future__ import annotations

from reliable.engine.arrivals import LIVES_MAX, Arrivals
from reliable.wire.extension import make_token

ONE, OTHER = b"life-one", b"life-two"


def test_the_newest_of_each_life_counts() -> None:
    """One link may bring an older delivery after another has brought a newer one."""
    arrivals = Arrivals()
    arrivals.expect(ONE)
    arrivals.expect(OTHER)
    assert arrivals.newest(ONE) == 0
    arrivals.came(ONE, make_token(ONE, 300))
    arrivals.came(ONE, make_token(ONE, 7))
    assert (arrivals.newest(ONE), arrivals.newest(OTHER)) == (300, 0)
    arrivals.expect(ONE)
    assert arrivals.newest(ONE) == 300, "a life that comes back"


def test_nothing_is_said_of_a_life_that_was_not_noted_from_its_beginning() -> None:
    """Deliveries of it may have come unseen."""
    arrivals = Arrivals()
    arrivals.came(ONE, make_token(ONE, 7))
    assert arrivals.newest(ONE) is None
    for number in range(LIVES_MAX + 1):
        arrivals.expect(number.to_bytes(8, "big"))
    arrivals.expect(ONE)
    arrivals.came(ONE, make_token(ONE, 8))
    assert arrivals.newest(ONE) is None
    assert arrivals.newest((0).to_bytes(8, "big")) == 0, "and no other is forgotten for it"
