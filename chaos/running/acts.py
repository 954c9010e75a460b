"""How each fault is done and undone, and what proves it."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chaos.injection import FaultUnproven
from chaos.netns import Drop
from chaos.running.faults import (
    Burst,
    Descriptors,
    Fault,
    Freeze,
    HoldGil,
    Hostile,
    Kill,
    LinkDown,
    Loss,
    Mute,
    Partition,
    Poison,
    SlowReplies,
    Storm,
    Toxics,
)
from chaos.running.members import Member
from chaos.running.model import Kind
from chaos.running.records import read_executions
from chaos.running.stage import CONTROL, Stage
from chaos.running.strangers import Strangers

if TYPE_CHECKING:
    from chaos.running.load import Load

__all__ = ["Act"]

_ACCEPTED = re.compile(r"accepted (\d+)")
_SENT_AWAY_S_MAX: Final = 5.0
_GROWN_KIB_MAX: Final = 65_536
"""What a broker may grow by while strangers announce terabytes."""


class Act:
    """One fault of one run: begun once, ended once.

    Args:
        fault: What.
        number: Of the fault, in the order of the scenario.
        stage: On what.
        load: Who makes the calls that some faults consist of.
    """

    def __init__(self, fault: Fault, number: int, stage: Stage, load: Load) -> None:
        self.fault = fault
        self.number = number
        self.lane = ""
        """The name of the process that it hits, if it is one."""
        self._stage = stage
        self._load = load
        self._victims: list[Member] = []
        self._before = 0
        self._limits = (0, 0)
        self._strangers: Strangers | None = None

    @property
    def text(self) -> str:
        """For people, with the victim's name once it is known."""
        text = self.fault.text()
        return text.replace(f"{self._victims[0].name.split()[0]} ?", self._victims[0].name) if self._victims else text

    def possible(self) -> bool:
        """Whether the one that it is to hit is there, and nobody else is just being started again."""
        if not isinstance(self.fault, Kill | Freeze | Descriptors | Hostile):
            return True
        return self._stage.settled and bool(self._stage.running(self.fault.target))

    def shown(self) -> bool:
        """Whether what it does on its own time has happened by now."""
        match self.fault:
            case Poison():
                return self._stage.deaths > self._before
            case Storm():
                return self._victims[0].state == "up"
            case HoldGil():
                return self._gil_runs() > 0
            case SlowReplies():
                return self._slow_runs(self.fault) > 0
            case Descriptors():
                return self._kept_out() > 0
            case _:
                return True

    def begin(self) -> str:
        """Break it; the proof so far.

        Raises:
            FaultUnproven: It cannot be shown that it happened.
            NotInjected: This machine cannot.
        """
        stage, fault = self._stage, self.fault
        match fault:
            case Kill() | Freeze():
                return self._strike(fault)
            case Toxics():
                for proxy in stage.proxies_of(fault.link):
                    for toxic in fault.toxics:
                        for direction in fault.directions:
                            proxy.add(toxic, direction, name=f"{toxic.kind}-{direction.value}-{self.number}")
                return "read back from the proxy"
            case LinkDown():
                for proxy in stage.proxies_of(fault.link):
                    proxy.disable()
                return "the proxy reports itself disabled"
            case Loss() | Partition():
                stage.drops[self.number] = self._drops(fault)
                self._before = stage.apply_drops()
                return "rules set"
            case Poison():
                stage.supervised = True
                self._before = stage.deaths
                self._load.special(Kind.POISON, fault.count)
                return "sent"
            case HoldGil():
                self._load.special(Kind.HOLD, 1, hold_s=fault.for_s)
                return "sent"
            case Burst():
                self._before = self._load.made
                self._load.factor = fault.factor
                return "load raised"
            case Storm():
                self._victims = [stage.start_storm(fault, self.number)]
                return "started"
            case Mute():
                return f"{self._accepted()} connections so far"
            case SlowReplies():
                self._load.slow_every, self._load.slow_s = fault.every, fault.by_s
                return "asked for"
            case Descriptors():
                return self._begin_descriptors(fault)
            case Hostile():
                return self._begin_hostile(fault)

    def end(self) -> str:
        """Mend it; the whole proof.

        Raises:
            FaultUnproven: Nothing shows that it happened.
        """
        stage, fault = self._stage, self.fault
        match fault:
            case Kill():
                for victim in self._victims:
                    victim.launch()
                return f"pid {self._victims[0].pids[-2]} ended by signal 9, then pid {self._victims[0].child.pid}"
            case Freeze():
                return "; ".join(victim.thaw() for victim in self._victims)
            case Toxics():
                for proxy in stage.proxies_of(fault.link):
                    for name in [name for name in proxy.toxics() if name.endswith(f"-{self.number}")]:
                        proxy.remove_toxic(name)
                return "toxics read back from the proxy, then removed"
            case LinkDown():
                for proxy in stage.proxies_of(fault.link):
                    proxy.enable()
                return "the proxy reported itself disabled, then enabled"
            case Loss() | Partition():
                return self._end_drops()
            case Poison():
                return _proven(stage.deaths - self._before, "workers killed by it")
            case HoldGil():
                # How long it lasted is checked at the end, when the run is written down whole.
                return _proven(self._gil_runs(), "handlers entered with it")
            case Burst():
                self._load.factor = 1.0
                return _proven(self._load.made - self._before, "calls made meanwhile")
            case Storm():
                return self._end_storm(fault)
            case Mute():
                return _proven(self._accepted(), "connections taken and left without a word")
            case SlowReplies():
                self._load.slow_every = 0
                return _proven(self._slow_runs(fault), "replies held back for as long")
            case Descriptors():
                return self._end_descriptors()
            case Hostile():
                return self._end_hostile()

    def close(self) -> None:
        """Mend what outlives the run, however it ended."""
        if self._strangers is not None:
            self._strangers.close()

    def _slow_runs(self, fault: SlowReplies) -> int:
        runs = read_executions(self._stage.folder, 0.0)
        return sum(run.finished_s is not None and run.finished_s - run.started_s >= fault.by_s for run in runs)

    def _begin_descriptors(self, fault: Descriptors) -> str:
        victim = self._stage.pick(fault.target)
        self._victims, self.lane = [victim], victim.name
        pid = victim.child.pid
        self._limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        # A limit below the highest number that is in use keeps nothing from living on, and lets nothing new begin.
        highest = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir())
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, self._limits[1]))
        self._before = self._load.made
        return f"limit of pid {pid} lowered from {self._limits[0]} to {highest + 1}, all in use"

    def _end_descriptors(self) -> str:
        pid = self._victims[0].child.pid
        limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
        count = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, self._limits)
        kept = _proven(self._kept_out(), "newcomers kept out")
        return f"{count} descriptors open with a limit of {limit}; {kept}"

    def _kept_out(self) -> int:
        new = list(self._load.calls)[self._before :]
        return sum(made.kind == Kind.NEWCOMER and made.failed for made in new)

    def _begin_hostile(self, fault: Hostile) -> str:
        victim = self._stage.pick(fault.target)
        self._victims, self.lane = [victim], victim.name
        self._before = _resident_kib(victim.child.pid)
        host, _, port = self._stage.watch_addresses()[fault.target].removeprefix("tcp://").rpartition(":")
        self._strangers = Strangers(host, int(port), fault.peers)
        return f"{fault.peers} connections made"

    def _end_hostile(self) -> str:
        assert self._strangers is not None
        loud, mute = len(self._strangers.loud), len(self._strangers.mute)
        away = self._strangers.sent_away(_SENT_AWAY_S_MAX)
        self._strangers.close()
        grown = _resident_kib(self._victims[0].child.pid) - self._before
        if away < loud or grown > _GROWN_KIB_MAX:
            raise FaultUnproven(f"{away} of {loud} hostile peers were sent away, and the broker grew by {grown} KiB")
        return f"{away} of {loud} sent away for what they said, {mute} silent ones borne; {grown} KiB more memory"

    def _gil_runs(self) -> int:
        held = {made.call.key for made in list(self._load.calls) if made.kind == Kind.HOLD}
        return sum(run.key in held for run in read_executions(self._stage.folder, 0.0))

    def _strike(self, fault: Kill | Freeze) -> str:
        victim = self._stage.pick(fault.target)
        self.lane = victim.name
        self._victims = [victim]
        if fault.target.startswith("server") and CONTROL in self._stage.members:
            self._victims.append(self._stage.members[CONTROL])
        # The control first: it was waited for until it was at work.
        return "; ".join(
            victim.kill() if isinstance(fault, Kill) else victim.freeze() for victim in reversed(self._victims)
        )

    def _drops(self, fault: Loss | Partition) -> list[Drop]:
        outer, broker = self._stage.side(fault.link), self._stage.side("broker")
        ways = [(outer, broker), (broker, outer)]
        if isinstance(fault, Loss):
            return [Drop(source=source, target=target, share=fault.share) for source, target in ways]
        if fault.to:
            ways = [(source, target) for source, target in ways if target == self._stage.side(fault.to)]
        return [Drop(source=source, target=target) for source, target in ways]

    def _end_drops(self) -> str:
        del self._stage.drops[self.number]
        return _proven(self._stage.apply_drops() - self._before, "packets dropped by the kernel's count")

    def _end_storm(self, storm: Storm) -> str:
        (member,) = self._victims
        member.look()
        if member.state != "up":
            raise FaultUnproven(f"not all of {storm.workers} workers were registered within {storm.for_s:g} s")
        member.kill()
        return f"{storm.workers} workers said that they were registered, then they were killed at once"

    def _accepted(self) -> int:
        counts = _ACCEPTED.findall(self._stage.members["mute"].child.output())
        return int(counts[-1]) if counts else 0


def _resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def _proven(count: int, what: str) -> str:
    if count < 1:
        raise FaultUnproven(f"no {what}")
    return f"{count} {what}"
