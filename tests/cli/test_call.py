"""``reliable call`` against a real broker and worker."""

from __future__ import annotations

import json
import time

import pytest

from reliable.status import ExitCode
from tests.support.commands import only_line, run_command
from tests.support.plain_servers import plain_server


def test_a_text_goes_there_and_back(served_url: str) -> None:
    """The first call of the tutorial."""
    result = run_command("call", "echo", "h\u00e9llo", "--broker", served_url)
    assert (result.returncode, result.stdout.decode(), result.stderr) == (ExitCode.OK, "h\u00e9llo\n", b"")


@pytest.mark.parametrize("body", [b"", b"line\n", b"\x00\xff\n\n", bytes(range(256)) * 400])
def test_standard_input_goes_there_and_back_byte_for_byte(body: bytes, served_url: str) -> None:
    """In a pipe not one byte may be added, whatever it is."""
    result = run_command("call", "echo", "-", "--broker", served_url, stdin=body)
    assert (result.returncode, result.stdout) == (ExitCode.OK, body)


def test_a_text_is_not_given_a_second_line_break(served_url: str) -> None:
    """A reply that ends its line needs no help."""
    assert run_command("call", "echo", "a\n", "--broker", served_url).stdout == b"a\n"


def test_json_tells_text_from_bytes(served_url: str) -> None:
    """A program must get the bytes back exactly."""
    result = run_command("call", "binary", "x", "--json", "--broker", served_url)
    value = json.loads(result.stdout)
    assert value["frames"] == [{"base64": "/wA="}, "text"]
    assert value["elapsed_s"] >= 0


@pytest.mark.parametrize(("arguments", "printed"), [("[1, 2]", b"3\n"), ('{"a": "x", "b": "y"}', b'"xy"\n')])
def test_typed_services_take_json_arguments(arguments: str, printed: bytes, served_url: str) -> None:
    """Services are typed unless they say otherwise: the shell must reach them too."""
    result = run_command("call", "add", "--args", arguments, "--broker", served_url)
    assert (result.returncode, result.stdout) == (ExitCode.OK, printed)


def test_an_unreachable_broker_is_code_6(free_url: str) -> None:
    """Nothing was sent, so a script may go to another broker."""
    result = run_command("call", "echo", "x", "--broker", free_url, "--timeout", "1")
    assert result.returncode == ExitCode.UNREACHABLE
    line = only_line(result.stderr)
    assert line.startswith("reliable: BrokerUnreachable (not executed")
    assert free_url in line
    assert result.stdout == b""


def test_an_unknown_service_is_code_4_at_once_with_fail_fast(served_url: str) -> None:
    """Waiting for a worker is the default; a script that wants to know says so."""
    started = time.monotonic()
    result = run_command("call", "nobody", "x", "--fail-fast", "--timeout", "15", "--broker", served_url)
    assert result.returncode == ExitCode.NO_SERVICE
    assert time.monotonic() - started < 10
    assert "ServiceNotFound (not executed" in only_line(result.stderr)


def test_an_unknown_service_is_code_4_after_waiting_too(served_url: str) -> None:
    """The end of the wait is not a mere timeout: it is known that nobody ran it."""
    result = run_command("call", "nobody", "x", "--timeout", "1", "--broker", served_url)
    assert result.returncode == ExitCode.NO_SERVICE
    assert "not executed" in only_line(result.stderr)


def test_a_failed_handler_is_code_5(served_url: str) -> None:
    """Type and text of the remote error, in one line although its text has two."""
    result = run_command("call", "fail", "x", "--broker", served_url)
    assert result.returncode == ExitCode.HANDLER_ERROR
    line = only_line(result.stderr)
    assert "WorkerFailed (executed, 1 attempt" in line
    assert "ValueError" in line
    assert "bad input" in line


def test_a_slow_handler_is_code_3(served_url: str) -> None:
    """The deadline holds whatever the worker does."""
    started = time.monotonic()
    result = run_command("call", "slow", "x", "--timeout", "0.5", "--broker", served_url)
    assert result.returncode == ExitCode.TIMEOUT
    assert time.monotonic() - started < 10
    assert "DeadlineExceeded (may have run" in only_line(result.stderr)


def test_a_body_above_the_limit_is_code_9(served_url: str) -> None:
    """Refused before it is sent, instead of cutting the connection of everybody behind it."""
    result = run_command("call", "echo", "-", "--broker", served_url, stdin=bytes(64 * 1024 * 1024 + 1))
    assert result.returncode == ExitCode.TOO_LARGE
    assert "MessageTooLarge (not executed, never sent" in only_line(result.stderr)


def test_an_error_as_json_has_the_same_code_and_line(served_url: str) -> None:
    """A program needs the outcome as a word, not out of a sentence."""
    result = run_command("call", "fail", "x", "--json", "--broker", served_url)
    value = json.loads(result.stdout)
    assert result.returncode == ExitCode.HANDLER_ERROR
    assert only_line(result.stderr).startswith("reliable: WorkerFailed")
    assert (value["error"], value["outcome"], value["service"], value["attempts"]) == (
        "WorkerFailed",
        "EXECUTED",
        "fail",
        1,
    )
    assert len(value["call_id"]) == 32
    assert isinstance(value["story"], list)


def test_a_second_broker_is_used_when_the_first_is_down(free_url: str, served_url: str) -> None:
    """Failover needs nothing but a second option."""
    result = run_command("call", "echo", "x", "--broker", free_url, "--broker", served_url)
    assert (result.returncode, result.stdout) == (ExitCode.OK, b"x\n")


def test_a_handler_may_name_an_argument_as_the_client_does(served_url: str) -> None:
    """``service`` is an ordinary word for an argument."""
    result = run_command("call", "name", "--args", '{"service": "x", "self": "y"}', "--broker", served_url)
    assert (result.returncode, result.stdout, result.stderr) == (ExitCode.OK, b'"xy"\n', b"")


def test_a_stream_is_printed_part_by_part(served_url: str) -> None:
    """In a pipe each part is a line, so that the next program can begin at once."""
    result = run_command("call", "count", "--args", "[3]", "--stream", "--broker", served_url)
    assert (result.returncode, result.stdout, result.stderr) == (ExitCode.OK, b"0\n1\n2\n", b"")
    result = run_command("call", "count", "--args", "[2]", "--stream", "--json", "--broker", served_url)
    assert [json.loads(line) for line in result.stdout.splitlines()] == [{"value": 0}, {"value": 1}]


def test_a_one_way_call_prints_nothing_and_needs_no_worker(served_url: str) -> None:
    """It is done when a broker holds it."""
    result = run_command("call", "later", "x", "--one-way", "--broker", served_url)
    assert (result.returncode, result.stdout, result.stderr) == (ExitCode.OK, b"", b"")


def test_a_dialect_reaches_a_plain_rep_server() -> None:
    """The quickest way to see whether a server of somebody else answers."""
    with plain_server("rep") as server:
        result = run_command("call", "any", "hello", "--dialect", "req", "--broker", server.endpoint)
    assert (result.returncode, result.stdout) == (ExitCode.OK, b"hello\n")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--dialect", "req", "--one-way"], "has no one-way calls"),
        (["--stream", "--one-way"], "exclude each other"),
        (["--dialect", "mdp/0.3"], "is not one of"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: list[str], complaint: str, served_url: str) -> None:
    """Before anything is sent."""
    result = run_command("call", "echo", "x", *options, "--broker", served_url)
    assert result.returncode == ExitCode.USAGE
    assert complaint in result.stderr.decode()
