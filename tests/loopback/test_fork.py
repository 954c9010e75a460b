"""Fork under load: parent and child each go on with calls of their own, and share nothing that a broker could mix up.

The forking process is a child of the test, since a fork copies whatever threads and locks the test runner has. It
prints one line of JSON per process; each grandchild ends with ``os._exit``, as a forked child should.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from chaos.process import ChildProcess
from tests.support.answering import Answering, answering
from tests.support.commands import ROOT

_FORKS: Final = 3
_CALLS: Final = 60
_WAIT_S_MAX: Final = 40.0

_COMMON: Final = """
import json, os, sys, threading, time, warnings
import reliable.calling
# A fork in a process with threads is what is tested here; Python 3.12 and later warn of it in these words.
warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of fork", DeprecationWarning)
url, way, forks, calls = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

client_ids = {}
make_engine = reliable.calling.ClientEngine

def noted_engine(*args, client_id, **kwargs):
    client_ids[os.getpid()] = client_id.hex()
    return make_engine(*args, client_id=client_id, **kwargs)

reliable.calling.ClientEngine = noted_engine

def write(name, ids):
    line = {"name": name, "pid": os.getpid(), "ids": ids, "client": client_ids.get(os.getpid(), "none of its own")}
    # One write each, so that the lines of several processes do not run into each other.
    os.write(1, (json.dumps(line) + "\\n").encode())

def in_child(run):
    code = 1
    try:
        run()
        code = 0
    except BaseException:
        import traceback
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)

def fork(run):
    if way == "os.fork":
        pid = os.fork()
        if pid == 0:
            in_child(run)
        return pid
    import multiprocessing
    process = multiprocessing.get_context("fork").Process(target=in_child, args=(run,))
    process.start()
    return process

def ended(child):
    deadline = time.monotonic() + 20
    if way != "os.fork":
        child.join(20)
        return child.exitcode
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "hangs"
"""

_SYNC: Final = (
    _COMMON
    + """
from reliable import Client
client = Client(url, timeout=15.0)

def who(word):
    trick, call_id = client.request("any", b"who", word)
    assert trick == b"re"
    return call_id.hex()

def right(word):
    assert client.request("any", b"late 0.01", word) == [b"re", word], word

def load(name, ids, part):
    for number in range(calls):
        ids.append(who(b"x"))
        right(b"%s %d %d %d" % (name, os.getpid(), part, number))

def child():
    ids = []
    threads = [threading.Thread(target=load, args=(b"child", ids, part)) for part in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 2 * calls, "a thread of the child failed"
    write("child", ids)
    client.close()

ids = []
threads = [threading.Thread(target=load, args=(b"parent", ids, part)) for part in range(4)]
for thread in threads:
    thread.start()
children = []
for number in range(forks):
    while len(ids) < (number + 1) * calls // 4:
        time.sleep(0.001)
    children.append(fork(child))
busy = any(thread.is_alive() for thread in threads)
for thread in threads:
    thread.join()
assert len(ids) == 4 * calls, "a thread of the parent failed"
codes = [ended(child) for child in children]
ids.append(who(b"x"))
write("parent", ids)
client.close()
print(json.dumps({"codes": codes, "busy": busy}), flush=True)
"""
)

_ASYNC: Final = (
    _COMMON
    + """
import asyncio
from reliable import AsyncClient
client = AsyncClient(url, timeout=15.0)

async def who(word):
    trick, call_id = await client.request("any", b"who", word)
    assert trick == b"re"
    return call_id.hex()

async def right(word):
    assert await client.request("any", b"late 0.01", word) == [b"re", word], word

async def load(name, ids, part):
    for number in range(calls):
        ids.append(await who(b"x"))
        await right(b"%s %d %d %d" % (name, os.getpid(), part, number))

def child():
    # The loop of the parent is none of the child's business: it is running, as far as the child can see.
    asyncio._set_running_loop(None)
    asyncio.set_event_loop_policy(None)

    async def main():
        ids = []
        await asyncio.gather(*(load(b"child", ids, part) for part in range(2)))
        write("child", ids)
        await client.close()

    asyncio.run(main())

async def main():
    ids = []
    tasks = [asyncio.create_task(load(b"parent", ids, part)) for part in range(4)]
    children = []
    for number in range(forks):
        while len(ids) < (number + 1) * calls // 4:
            await asyncio.sleep(0.001)
        children.append(fork(child))
    busy = not all(task.done() for task in tasks)
    await asyncio.gather(*tasks)
    codes = await asyncio.gather(*(asyncio.to_thread(ended, child) for child in children))
    ids.append(await who(b"x"))
    write("parent", ids)
    await client.close()
    print(json.dumps({"codes": codes, "busy": busy}), flush=True)

asyncio.run(main())
"""
)
_CODE: Final = {"sync": _SYNC, "asyncio": _ASYNC}


@pytest.fixture
def service(tmp_path: Path, no_leaks: None) -> Iterator[Answering]:
    """A broker, and a worker that tells callers the ids of their calls."""
    with answering("mdp", tmp_path) as made:
        yield made


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["os.fork", "multiprocessing"])
@pytest.mark.parametrize("kind", _CODE)
def test_forked_children_and_their_parent_go_on_with_calls_of_their_own(
    service: Answering, kind: str, way: str
) -> None:
    """A child that used the parent's socket or its ids would take replies away from it, or be taken for it."""
    arguments = ("-X", "dev", "-W", "error", "-c", _CODE[kind], service.endpoint, way, str(_FORKS), str(_CALLS))
    with ChildProcess.python(*arguments, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}) as process:
        code = process.wait(_WAIT_S_MAX)
        output = process.output()
    assert code == 0, output
    *told, verdict = _lines(output)
    assert verdict == {"codes": [0] * _FORKS, "busy": True}, output
    assert sorted(line["name"] for line in told) == [*(["child"] * _FORKS), "parent"]
    assert len({line["pid"] for line in told}) == _FORKS + 1
    assert len({line["client"] for line in told}) == _FORKS + 1, "a client id is shared"
    ids = [call_id for line in told for call_id in line["ids"]]
    assert len(ids) == _FORKS * 2 * _CALLS + 4 * _CALLS + 1
    assert len(set(ids)) == len(ids), "a call id was used twice"
    twice = [word for word, count in service.runs().items() if count > 1 and word != "x"]
    assert twice == [], "a call ran twice"
