"""Frames ↔ commands of MDP 0.1 and 0.2: golden bytes, round trips, and decoders that survive anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable.errors import RemoteProtocolError
from reliable.types import Frames
from reliable.wire import mdp
from reliable.wire.extension import MAGIC
from reliable.wire.mdp import (
    ClientReply,
    ClientRequest,
    Version,
    WorkerDisconnect,
    WorkerHeartbeat,
    WorkerReady,
    WorkerReply,
    WorkerRequest,
    check_service,
    decode_at_broker,
    decode_at_client,
    decode_at_worker,
)
from tests.support.vectors import Vector, load_vectors

V1, V2 = Version.MDP01, Version.MDP02
CLIENT, WORKER = b"\x00\x6b\x8b\x45\x67", b"\x00\x6b\x8b\x45\x68"
MANY = [b"hello", b"", b"\x00\xff"]

Command = ClientRequest | ClientReply | WorkerReady | WorkerRequest | WorkerReply | WorkerHeartbeat | WorkerDisconnect

EXPECTED: dict[str, Command] = {
    "mdp1.client.request": ClientRequest(V1, b"echo", [b"hello"]),
    "mdp1.client.request.many": ClientRequest(V1, b"echo", MANY),
    "mdp1.client.request.empty": ClientRequest(V1, b"echo", [b""]),
    "mdp1.client.reply": ClientReply(V1, b"echo", [b"hello"]),
    "mdp1.worker.ready": WorkerReady(V1, b"echo"),
    "mdp1.worker.request": WorkerRequest(V1, CLIENT, [b"hello"]),
    "mdp1.worker.reply": WorkerReply(V1, CLIENT, [b"hello"]),
    "mdp1.worker.reply.many": WorkerReply(V1, CLIENT, MANY),
    "mdp1.worker.heartbeat": WorkerHeartbeat(V1),
    "mdp1.worker.disconnect": WorkerDisconnect(V1),
    "mdp2.client.request": ClientRequest(V2, b"echo", [b"hello"]),
    "mdp2.client.partial": ClientReply(V2, b"echo", [b"hello"], final=False),
    "mdp2.client.final": ClientReply(V2, b"echo", [b"hello"]),
    "mdp2.worker.ready": WorkerReady(V2, b"echo"),
    "mdp2.worker.request": WorkerRequest(V2, CLIENT, [b"hello"]),
    "mdp2.worker.partial": WorkerReply(V2, CLIENT, [b"hello"], final=False),
    "mdp2.worker.final": WorkerReply(V2, CLIENT, [b"hello"]),
    "mdp2.worker.heartbeat": WorkerHeartbeat(V2),
    "mdp2.worker.disconnect": WorkerDisconnect(V2),
    "mmi1.ask": ClientRequest(V1, b"mmi.service", [b"echo"]),
    "mmi1.200": ClientReply(V1, b"mmi.service", [b"200"]),
    "mmi1.404": ClientReply(V1, b"mmi.service", [b"404"]),
    "mmi1.501": ClientReply(V1, b"mmi.nosuch", [b"501"]),
    "mmi1.ready.reserved": WorkerReady(V1, b"mmi.evil"),
    "mmi2.ask": ClientRequest(V2, b"mmi.service", [b"echo"]),
    "mmi2.200": ClientReply(V2, b"mmi.service", [b"200"]),
    "unexpected.heartbeat": WorkerHeartbeat(V1),
    "unexpected.reply": WorkerReply(V1, CLIENT, [b"x"]),
    "unexpected.request": WorkerRequest(V1, CLIENT, [b"x"]),
}


def decode(reader: str, frames: list[bytes]) -> Command | None:
    """Read frames as that peer does."""
    if reader == "client":
        return decode_at_client(frames)
    return decode_at_worker(frames) if reader == "worker" else decode_at_broker(frames)


def accepted(*readers: str) -> list[Vector]:
    return [v for v in load_vectors(*readers) if v.verdict not in ("refused", "probe")]


# --- golden bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", accepted("broker", "client", "worker"), ids=str)
def test_golden_messages_are_read_as_the_rfc_says_and_written_back_byte_for_byte(vector: Vector) -> None:
    """Peers that are not ours speak these bytes: a layout that is only consistent with itself is worth nothing."""
    command = decode(vector.reader, list(vector.frames))

    assert command == EXPECTED[vector.name]
    assert command is not None and command.encode() == list(vector.frames)
    assert vector.verdict in (type(command).__name__, "unexpected")


@pytest.mark.parametrize("vector", accepted("router"), ids=str)
def test_behind_the_routing_id_a_router_sees_the_same_message(vector: Vector) -> None:
    """Broker code strips exactly one frame before it decodes."""
    routing_id, *frames = vector.frames
    assert routing_id == (CLIENT if "client" in vector.name else WORKER)
    assert decode_at_broker(frames) == EXPECTED[vector.name]


@pytest.mark.parametrize("vector", load_vectors("sent"), ids=str)
def test_a_broker_sends_its_commands_behind_the_routing_id(vector: Vector) -> None:
    """What the broker hands to ROUTER is the routing id followed by the encoded command."""
    assert [WORKER, *EXPECTED[vector.name].encode()] == list(vector.frames)


def test_every_golden_message_has_an_expectation_and_every_expectation_a_message() -> None:
    """A vector that no test reads would be decoration."""
    assert {v.name for v in accepted()} == set(EXPECTED)
    assert len(load_vectors()) == 57


@pytest.mark.parametrize("vector", [v for v in load_vectors("broker") if v.verdict == "refused"], ids=str)
def test_malformed_messages_are_refused_with_the_one_error_that_engines_catch(vector: Vector) -> None:
    """7/MDP: invalid messages are dropped; any other exception would come out of the broker's loop."""
    with pytest.raises(RemoteProtocolError):
        decode_at_broker(list(vector.frames))


def test_the_probe_of_probe_router_is_neither_an_error_nor_a_command() -> None:
    """libzmq sends one empty frame on connect when PROBE_ROUTER is set; it must not count as an offence."""
    (probe,) = [v for v in load_vectors() if v.verdict == "probe"]
    assert decode_at_broker(list(probe.frames)) is None


# --- what stands in front of the delimiter ---------------------------------------------------------

CALL_FRAME = MAGIC + b"anything"


def test_a_correlate_id_or_a_proxy_address_in_front_of_an_01_request_is_kept() -> None:
    """REQ_CORRELATE and proxies put frames there; the reply must carry them back."""
    frames = [b"\0\0\0\7", b"proxy", b"", b"MDPC01", b"echo", b"hello"]
    request = decode_at_broker(frames)
    assert request == ClientRequest(V1, b"echo", [b"hello"], [b"\0\0\0\7", b"proxy"])
    assert request is not None and request.encode() == frames


def test_a_call_frame_in_front_of_an_02_request_is_kept_with_its_delimiter() -> None:
    """The extension travels here: stack, empty frame, then the plain 0.2 message."""
    frames = [b"proxy", CALL_FRAME, b"", b"MDPC02", b"\1", b"echo", b"hello"]
    request = decode_at_broker(frames)
    assert request == ClientRequest(V2, b"echo", [b"hello"], [b"proxy", CALL_FRAME])
    assert request is not None and request.encode() == frames


@pytest.mark.parametrize("final", [True, False])
def test_an_answer_frame_in_front_of_an_02_reply_is_kept(final: bool) -> None:
    """Clients find the status there."""
    frames = [CALL_FRAME, b"", b"MDPC02", b"\3" if final else b"\2", b"echo", b"hello"]
    reply = decode_at_client(frames)
    assert reply == ClientReply(V2, b"echo", [b"hello"], [CALL_FRAME], final)
    assert reply.encode() == frames
    assert decode_at_worker(frames) == reply


def test_a_foreign_frame_in_front_of_an_02_message_is_refused() -> None:
    """18/MDP has no delimiter; without a frame of ours in front of it this is nobody's dialect, so never guess."""
    with pytest.raises(RemoteProtocolError):
        decode_at_broker([b"proxy", b"", b"MDPC02", b"\1", b"echo", b"hello"])
    with pytest.raises(RemoteProtocolError):
        decode_at_client([b"proxy", b"", b"MDPC02", b"\3", b"echo", b"hello"])


@pytest.mark.parametrize(
    ("count", "fits"), [(1, True), (mdp.STACK_FRAMES_MAX, True), (mdp.STACK_FRAMES_MAX + 1, False)]
)
@pytest.mark.parametrize("header", [[b"MDPC01"], [b"MDPC02", b"\1"]])
def test_the_stack_is_bounded(count: int, fits: bool, header: list[bytes]) -> None:
    """A search for the delimiter that runs over a whole hostile message is a cheap way to burn a broker's time."""
    frames = [*[CALL_FRAME] * count, b"", *header, b"echo", b"hello"]
    if fits:
        request = decode_at_broker(frames)
        assert isinstance(request, ClientRequest) and len(request.stack) == count
    else:
        with pytest.raises(RemoteProtocolError):
            decode_at_broker(frames)


def test_clients_bound_the_stack_as_brokers_do() -> None:
    """Both ends accept the same messages."""
    tail = [b"", b"MDPC02", b"\3", b"echo", b"hello"]
    assert len(decode_at_client([CALL_FRAME] * mdp.STACK_FRAMES_MAX + tail).stack) == mdp.STACK_FRAMES_MAX
    with pytest.raises(RemoteProtocolError):
        decode_at_client([CALL_FRAME] * (mdp.STACK_FRAMES_MAX + 1) + tail)


def test_a_ready_with_a_frame_of_ours_is_an_extended_ready_and_with_another_frame_is_refused() -> None:
    """Our workers register with one frame more; RFC brokers of others must refuse theirs, and we refuse strangers'."""
    frames = [b"MDPW02", b"\1", b"echo", CALL_FRAME]
    assert decode_at_broker(frames) == WorkerReady(V2, b"echo", CALL_FRAME)
    for bad in ([*frames, b"x"], [*frames[:3], b""], [*frames[:3], b"x"]):
        with pytest.raises(RemoteProtocolError):
            decode_at_broker(bad)


def test_tuples_are_read_like_lists() -> None:
    """The signature says any sequence."""
    for vector in accepted("broker"):
        assert decode_at_broker(vector.frames) == EXPECTED[vector.name]


def test_only_the_header_decides_the_meaning_of_a_command_number() -> None:
    """4 is HEARTBEAT in 0.1 and FINAL in 0.2, 5 is DISCONNECT in 0.1 and HEARTBEAT in 0.2: one table per header."""
    assert decode_at_broker([b"", b"MDPW01", b"\4"]) == WorkerHeartbeat(V1)
    assert decode_at_broker([b"", b"MDPW01", b"\5"]) == WorkerDisconnect(V1)
    assert decode_at_broker([b"MDPW02", b"\5"]) == WorkerHeartbeat(V2)
    assert decode_at_broker([b"MDPW02", b"\6"]) == WorkerDisconnect(V2)
    with pytest.raises(RemoteProtocolError):
        decode_at_broker([b"", b"MDPW01", b"\6"])


def test_a_partial_worker_reply_has_no_form_in_01() -> None:
    """Sending a PARTIAL as REPLY would end the request."""
    with pytest.raises(ValueError, match="partial"):
        WorkerReply(V1, b"a", [b"x"], final=False).encode()


# --- service names ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", b"", "x" * 256, "with space", "tab\t", "schön", b"\xff", "line\n", "nul\0"])
def test_service_names_that_would_not_survive_a_log_line_are_refused(name: str | bytes) -> None:
    """The user learns of a typo when the name is written, not when a call times out."""
    with pytest.raises(ValueError, match="service name"):
        check_service(name)


def test_service_names_are_compared_as_bytes() -> None:
    """No case folding and no trimming: 7/MDP."""
    assert check_service("Echo.v1") == b"Echo.v1"
    assert check_service(b"x" * 255) == b"x" * 255


@pytest.mark.parametrize(
    "frames",
    [
        [b"MDPC02", b"\1", b"x" * 256, b"hello"],
        [b"", b"MDPC01", b"x" * 256, b"hello"],
        [b"MDPW02", b"\1", b"x" * 256],
        [b"MDPC02", b"\1", b"", b"hello"],
    ],
)
def test_service_frames_of_a_wrong_size_are_refused_at_the_broker(frames: Frames) -> None:
    """Names become keys of tables: a megabyte of name would be kept."""
    with pytest.raises(RemoteProtocolError):
        decode_at_broker(frames)


@pytest.mark.parametrize(
    "frames", [[], [b""], [b"MDPC02"], [b"MDPC02", b"\1", b"echo", b"x"], [b"MDPC02", b"\3", b"", b"x"], [b"a", b"b"]]
)
def test_clients_and_workers_refuse_what_no_broker_sends(frames: Frames) -> None:
    """A client must not take a request, or half a message, for a reply."""
    with pytest.raises(RemoteProtocolError):
        decode_at_client(frames)
    with pytest.raises(RemoteProtocolError):
        decode_at_worker(frames)


# --- round trips and fuzz --------------------------------------------------------------------------

versions = st.sampled_from(Version)
services = st.binary(min_size=1, max_size=255)
bodies = st.lists(st.binary(max_size=40), min_size=1, max_size=5)
addresses = st.binary(min_size=1, max_size=40)
our_frames = st.binary(max_size=20).map(lambda tail: MAGIC + tail)
proxies = st.lists(st.binary(min_size=1, max_size=8).filter(lambda frame: not frame.startswith(b"MDP")), max_size=3)
stacks: st.SearchStrategy[Frames] = st.one_of(
    st.just([]), st.tuples(proxies, our_frames).map(lambda pair: [*pair[0], pair[1]])
)

to_broker: st.SearchStrategy[Command] = st.one_of(
    st.builds(ClientRequest, versions, services, bodies, stacks),
    st.builds(ClientRequest, st.just(V1), services, bodies, proxies),
    st.builds(WorkerReady, versions, services, st.one_of(st.just(b""), our_frames)),
    st.builds(WorkerRequest, versions, addresses, bodies),
    st.builds(WorkerReply, versions, addresses, bodies),
    st.builds(WorkerReply, st.just(V2), addresses, bodies, st.just(False)),
    st.builds(WorkerHeartbeat, versions),
    st.builds(WorkerDisconnect, versions),
)
to_client: st.SearchStrategy[Command] = st.one_of(
    st.builds(ClientReply, versions, services, bodies, stacks),
    st.builds(ClientReply, st.just(V1), services, bodies, proxies),
    st.builds(ClientReply, st.just(V2), services, bodies, stacks, st.just(False)),
)
to_worker: st.SearchStrategy[Command] = st.one_of(
    to_client,
    st.builds(WorkerRequest, versions, addresses, bodies),
    st.builds(WorkerHeartbeat, versions),
    st.builds(WorkerDisconnect, versions),
)


@given(to_broker)
def test_whatever_a_peer_says_the_broker_reads_back_equal(command: Command) -> None:
    """Nothing may be lost on the way, empty and binary frames included."""
    assert decode_at_broker(command.encode()) == command


@given(to_client)
def test_whatever_a_broker_says_the_client_reads_back_equal(command: Command) -> None:
    """The same the other way."""
    assert decode_at_client(command.encode()) == command


@given(to_worker)
def test_whatever_a_broker_says_the_worker_reads_back_equal(command: Command) -> None:
    """Worker commands, and the answer to a hello."""
    assert decode_at_worker(command.encode()) == command


VOCABULARY = [b"", b"MDPC01", b"MDPC02", b"MDPW01", b"MDPW02", MAGIC, CALL_FRAME, b"echo", b"x" * 256]
VOCABULARY += [bytes([code]) for code in range(8)]
arbitrary = st.lists(st.one_of(st.sampled_from(VOCABULARY), st.binary(max_size=12)), max_size=22)


@st.composite
def mutated(draw: st.DrawFn) -> Frames:
    """A valid message with a few frames dropped, doubled, replaced or swapped."""
    frames = list(draw(st.one_of(to_broker, to_client)).encode())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(frames)))
        action = draw(st.sampled_from(["drop", "insert", "replace", "cut", "swap"]))
        if action == "insert":
            frames.insert(at, draw(st.sampled_from(VOCABULARY)))
        elif frames and action == "swap":
            frames[at % len(frames)], frames[0] = frames[0], frames[at % len(frames)]
        elif frames and action == "cut":
            frames[at % len(frames)] = frames[at % len(frames)][:-1]
        elif frames:
            frames[at % len(frames) : at % len(frames) + 1] = (
                [draw(st.sampled_from(VOCABULARY))] if action == "replace" else []
            )
    return frames


@pytest.mark.parametrize("decoder", [decode_at_broker, decode_at_client, decode_at_worker])
@given(frames=st.one_of(arbitrary, mutated()))
def test_arbitrary_frames_are_refused_or_read_without_loss(
    decoder: Callable[[Frames], Command | None], frames: Frames
) -> None:
    """No peer can raise anything else out of a loop, and no two messages mean the same."""
    try:
        command = decoder(frames)
    except RemoteProtocolError:
        return
    if command is None:
        assert frames == [b""]
    else:
        assert command.encode() == frames


@given(frames=st.one_of(arbitrary, mutated()))
def test_the_short_cut_for_common_requests_reads_what_the_whole_decoder_reads(frames: Frames) -> None:
    """A message that only one of them takes would be a rule with a hole, and a rule that nobody wrote down."""

    def read(message: Sequence[bytes], start: int) -> object:
        try:
            return decode_at_broker(message, start)
        except RemoteProtocolError as error:
            return str(error)

    # The short cut is for lists alone; and the routing id in front is for neither of them.
    whole = read(tuple(frames), 0)
    assert read(frames, 0) == whole
    assert read([b"peer", *frames], 1) == whole
