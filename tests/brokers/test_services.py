"""Queues and shelves of services: fairness, order, and how many names are kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brokers.peers import ClientPeer, Worker
from brokers.records import Call
from brokers.services import FairQueue, Service, ServiceTable
from reliable.wire.mdp import Version

SERVICE = Service(b"echo")


def make_call(client: bytes, *, urgent: bool = False) -> Call:
    """A request of a plain client."""
    call = Call(
        call_id=bytes(16),
        ours=False,
        service=SERVICE,
        body=[b""],
        size=0,
        peer=ClientPeer(),
        answer_to=client,
        stack=[],
        version=Version.MDP01,
        client_key=client,
        deadline=1.0,
        now=0.0,
    )
    call.urgent = urgent
    return call


def make_worker(name: bytes = b"w", credit: int = 1) -> Worker:
    """A worker of ours."""
    return Worker(name, Version.MDP02, 0.0, instance=name.ljust(16, b"."), credit=credit)


def offering(service: Service, *workers: Worker) -> None:
    """Let them offer the service and stand on its shelves."""
    for worker in workers:
        service.offer(worker, None)
        worker.services.append(service)
        worker.reshelve()


# --- FairQueue ---


def test_clients_take_turns_and_keep_their_own_order() -> None:
    """7/MDP: a client with a thousand requests must not starve one with a single request."""
    queue = FairQueue()
    greedy = [make_call(b"greedy") for _ in range(4)]
    modest = make_call(b"modest")
    for call in [*greedy, modest]:
        queue.push(call)
    assert [queue.pop() for _ in range(5)] == [greedy[0], modest, greedy[1], greedy[2], greedy[3]]
    assert len(queue) == 0


def test_what_came_back_goes_first_in_the_order_of_coming_back() -> None:
    """It has waited already; among its like nobody overtakes."""
    queue = FairQueue()
    usual, first, second = make_call(b"a"), make_call(b"b", urgent=True), make_call(b"a", urgent=True)
    for call in (usual, first, second):
        queue.push(call)
    assert [queue.pop() for _ in range(3)] == [first, second, usual]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=40))
def test_any_request_can_be_taken_out_from_anywhere(plan: list[tuple[int, bool, bool]]) -> None:
    """Expiry and cancellation hit requests in the middle; nothing may be lost or left behind."""
    queue = FairQueue()
    calls = [make_call(bytes([client]), urgent=urgent) for client, urgent, _ in plan]
    for call in calls:
        queue.push(call)
    kept = {call for call, (_, _, remove) in zip(calls, plan, strict=True) if not remove}
    for call in calls:
        if call not in kept:
            queue.remove(call)
    assert len(queue) == len(kept)
    assert {queue.pop() for _ in range(len(queue))} == kept
    assert queue._by_client == {} and queue._urgent == {}


# --- shelves ---


def test_least_recently_used_worker_is_next() -> None:
    """With one request at a time this is the order that 7/MDP names as its goal."""
    service = Service(b"echo")
    first, second = make_worker(b"1"), make_worker(b"2")
    offering(service, first, second)
    assert service.pick() is first
    first.in_hand[b"t"] = None  # type: ignore[assignment]
    first.reshelve()
    assert service.pick() is second
    first.in_hand.clear()
    first.reshelve()
    assert service.pick() is second, "who became free last is used last"


def test_least_loaded_worker_is_next() -> None:
    """With credit, a loaded worker must not get more while another has nothing to do."""
    service = Service(b"echo")
    loaded, free = make_worker(b"1", credit=3), make_worker(b"2", credit=3)
    offering(service, loaded, free)
    loaded.in_hand[b"t"] = None  # type: ignore[assignment]
    loaded.reshelve()
    assert service.pick() is free
    for token in (b"x", b"y"):
        free.in_hand[token] = None  # type: ignore[assignment]
    free.reshelve()
    assert service.pick() is loaded
    loaded.in_hand |= {b"u": None, b"v": None}  # type: ignore[dict-item]
    loaded.reshelve()
    assert service.pick() is free
    free.in_hand[b"z"] = None  # type: ignore[assignment]
    free.reshelve()
    assert service.pick() is None
    loaded.in_hand.clear()
    loaded.reshelve()
    assert service.pick() is loaded


def test_worker_that_cannot_take_work_is_on_no_shelf() -> None:
    """Stuck, held back or without credit: whatever it is given would wait there."""
    service = Service(b"echo")
    worker = make_worker()
    offering(service, worker)
    worker.stuck = True
    worker.reshelve()
    assert service.pick() is None
    worker.stuck, worker.held_back = False, True
    worker.reshelve()
    assert service.pick() is None
    worker.held_back, worker.credit = False, 0
    worker.reshelve()
    assert service.pick() is None
    worker.credit = 1
    worker.reshelve()
    assert service.pick() is worker


def test_worker_of_several_services_is_taken_off_all_shelves() -> None:
    """Else it would be handed a second request through its other service."""
    one, two = Service(b"one"), Service(b"two")
    worker = make_worker()
    offering(one, worker)
    worker.services.append(two)
    two.offer(worker, None)
    two.shelve(worker, -1, worker.shelf)
    worker.in_hand[b"t"] = None  # type: ignore[assignment]
    worker.reshelve()
    assert one.pick() is None
    assert two.pick() is None


# --- what workers declare ---


def test_one_no_is_a_no_and_is_remembered_when_the_last_worker_leaves() -> None:
    """The request that a lost worker left behind must still be judged by what that worker said."""
    service = Service(b"pay")
    careful, careless = make_worker(b"1"), make_worker(b"2")
    said = [service.idempotent]
    service.offer(careless, True)
    said.append(service.idempotent)
    service.offer(careful, False)
    said.append(service.idempotent)
    service.withdraw(careful)
    said.append(service.idempotent)
    assert said == [None, True, False, True]
    service.offer(careful, False)
    service.withdraw(careless)
    service.withdraw(careful)
    said = [service.idempotent]
    service.offer(careless, None)
    said.append(service.idempotent)
    assert said == [False, None]


def test_live_worker_is_one_that_takes_requests() -> None:
    """mmi.service must not say 200 for a worker that nothing can be expected of."""
    service = Service(b"echo")
    seen = [service.has_live_worker()]
    worker = make_worker()
    service.offer(worker, None)
    for worker.stuck, worker.credit in ((False, 1), (True, 1), (False, 0)):
        seen.append(service.has_live_worker())
    assert seen == [False, True, False, False]


# --- ServiceTable ---


def test_unknown_names_are_bounded_and_go_with_their_last_request() -> None:
    """Anybody can utter names; only those that somebody waits for may cost anything."""
    table = ServiceTable(offered_max=5, unknown_max=2)
    first = table.ask(b"a")
    assert first is not None and table.unknown(first)
    assert table.ask(b"a") is first
    assert table.ask(b"b") is not None
    assert table.ask(b"c") is None
    assert table.ask(b"c", must=True) is not None, "what was accepted once comes back in any case"
    call = make_call(b"x")
    first.queue.push(call)
    table.settle(first)
    assert table.get(b"a") is first
    first.queue.pop()
    table.settle(first)
    assert table.get(b"a") is None
    table.settle(first)


def test_service_that_had_workers_is_kept_until_room_is_needed() -> None:
    """Its declaration still counts; but a worker that comes now is worth more than a memory."""
    table = ServiceTable(offered_max=2, unknown_max=2)
    old = table.offer(b"old")
    table.settle(old)
    assert table.get(b"old") is old and not table.unknown(old)
    worker = make_worker()
    table.offer(b"one").offer(worker, None)
    assert table.get(b"old") is old
    table.offer(b"two").offer(worker, None)
    assert table.get(b"old") is None
    table.settle(old)
    assert table.get(b"old") is None, "a service that was dropped does not come back by settling"


def test_settling_a_dropped_service_leaves_its_namesake_alone() -> None:
    """A request may still point to the old one when the name has come back with a new worker."""
    table = ServiceTable(offered_max=1, unknown_max=2)
    old = table.offer(b"name")
    table.settle(old)
    table.offer(b"pushes-it-out")
    new = table.ask(b"name")
    assert new is not None and new is not old
    table.settle(old)
    table.offer(b"another")
    assert table.get(b"name") is new


def test_service_that_is_asked_for_is_not_dropped_for_room() -> None:
    """It has a queue: dropping it would strand those who wait."""
    table = ServiceTable(offered_max=1, unknown_max=2)
    service = table.offer(b"old")
    table.settle(service)
    assert table.ask(b"old") is service
    service.queue.push(make_call(b"x"))
    table.offer(b"new")
    assert table.get(b"old") is service


def test_room_counts_what_would_be_new() -> None:
    """A READY with too many names is refused whole."""
    table = ServiceTable(offered_max=2, unknown_max=2)
    worker = make_worker()
    table.offer(b"one").offer(worker, None)
    table.ask(b"waited-for")
    assert table.room_for([b"one", b"waited-for"])
    assert not table.room_for([b"one", b"two", b"three"])


def test_offering_a_name_that_was_waited_for_makes_it_known() -> None:
    """Its queue stays, its bound changes."""
    table = ServiceTable(offered_max=2, unknown_max=1)
    waited = table.ask(b"a")
    assert waited is not None
    assert table.offer(b"a") is waited
    assert not table.unknown(waited)
    assert table.ask(b"b") is not None, "it no longer counts as unknown"
