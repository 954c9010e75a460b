"""One scenario, from nothing to a report: set up, load, faults in time, recovery, a healed phase, the judgement."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from chaos.history import Call, End, Ending, History
from chaos.injection import FaultUnproven
from chaos.process import StartFailed
from chaos.reporting.value import CallLine, ControlLine, FaultLine, RunReport, SampleLine, StateLine
from chaos.running.acts import Act
from chaos.running.checks import judge
from chaos.running.child_worker import NOTE, ONCE, PARTS, PARTS_AGAIN, SAFE, SERVICES, STEPS
from chaos.running.control import Control
from chaos.running.evidence import CallFacts, Evidence, Queue
from chaos.running.faults import CLIENTS
from chaos.running.load import FAULTS, HEALED, SETTLING, Load, Made
from chaos.running.model import Guest, Scenario, shortened
from chaos.running.records import read_executions, runs_by_key
from chaos.running.schedule import Step, What, steps_of
from chaos.running.stage import STORM, Stage, worker_name
from chaos.running.watch import Sample, Watch
from reliable import Client
from reliable.errors import RequestError

__all__ = ["Say", "broken_off", "run_here"]

Say: TypeAlias = Callable[[str, str], None]
"""Is told of news, as ``("fault", text)``, and of progress, as ``("progress", text)``."""

_TEND_EVERY_S: Final = 0.05
_PROGRESS_EVERY_S: Final = 0.5
_DRAIN_S_MAX: Final = 30.0
_IDLE_S_MAX: Final = 6.0
_HUNG_MIN_S: Final = 1.0
_LAG_AROUND_S: Final = 1.0
_QUEUED_MAX: Final = 10
"""Of a broker that has caught up with what piled up."""
_VICTIM_S_MAX: Final = 15.0
_SHOWN_S_MAX: Final = 10.0
_TRY_S_MAX: Final = 10.0


def run_here(scenario: Scenario, *, seed: int, short: bool, say: Say) -> RunReport:
    """Run a scenario in this process and its children, in the main thread.

    Args:
        scenario: What.
        seed: Fixes what is called and who is hit, as far as processes can be made to repeat themselves.
        short: Its short form.
        say: Gets news while it runs.

    Raises:
        NotInjected: This machine lacks what a fault needs.
        StartFailed: A process did not come up.
        ToxiproxyError: Toxiproxy refused something.
    """
    wanted = shortened(scenario) if short else scenario
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="reliable-chaos-") as folder:
        runner = _Runner(wanted, seed, Path(folder), say)
        evidence = runner.run()
        return runner.report(evidence, short=short, whole_s=time.monotonic() - began)


def broken_off(scenario: Scenario, *, seed: int, short: bool, verdict: str, reason: str) -> RunReport:
    """The report of a run that did not come to its end."""
    return RunReport(
        scenario=scenario.name,
        title=scenario.title,
        promise=scenario.promise,
        seed=seed,
        short=short,
        verdict=verdict,
        reason=reason,
    )


class _Runner:
    def __init__(self, scenario: Scenario, seed: int, folder: Path, say: Say) -> None:
        self._scenario = scenario
        self._guest = scenario.guest
        self._seed = seed
        self._folder = folder
        self._say = say
        self._stage = Stage(scenario, seed, folder)
        self._load: Load
        self._watch: Watch
        self._control: Control | None = None
        self._begun_at = 0.0
        self._ended_at = 0.0
        self._progress_at = 0.0
        self._faults: dict[int, FaultLine] = {}
        self._acts: dict[int, Act] = {}
        self._healed_at: float | None = None
        self._recovered_at: float | None = None
        self._missing = ""
        self._expected: dict[str, frozenset[str]] = {}
        self._final: dict[str, Queue] = {}
        self._ended_alone: list[str] = []
        self._left: list[str] = []

    # --- the run ----------------------------------------------------------------------------------

    def run(self) -> Evidence:
        with self._stage as stage:
            self._load = Load(self._scenario.topology, stage.addresses(CLIENTS), self._seed, self._guest)
            self._watch = Watch(stage.watch_addresses(), SERVICES if self._guest is None else None)
            if self._scenario.control:
                self._control = Control(stage.control_address())
            try:
                self._perform()
            finally:
                for act in self._acts.values():
                    act.close()
                if self._control is not None:
                    self._control.stop()
                self._load.close()
                self._watch.stop()
        self._left = [f"process {pid}" for pid in stage.pids() if _exists(pid)]
        return self._evidence()

    def _perform(self) -> None:
        self._watch.start()
        self._await_workers()
        if self._guest is not None:
            self._try_guest(self._guest)
        self._begun_at = time.monotonic()
        if not self._scenario.faults:
            # Nothing is broken, so from the start no call may fail.
            self._load.phase = HEALED
        self._load.start()
        if self._control is not None:
            self._control.start()
        slip_s = 0.0
        for step in steps_of(self._scenario.faults):
            due = self._begun_at + step.at_s + slip_s
            self._until(due)
            self._load.phase = FAULTS
            if step.what is What.BEGIN:
                self._await_victim(step)
                # What begins late ends as much later, and so does all that follows: no fault is cut short.
                slip_s += time.monotonic() - due
            self._take(step)
        self._until(self._begun_at + self._scenario.quiet_s)
        if self._scenario.faults:
            self._healed_at = time.monotonic()
            self._load.phase = SETTLING
            self._settle()
            self._load.phase = HEALED
        self._until(time.monotonic() + self._scenario.healed_s)
        self._ended_at = time.monotonic()
        self._load.stop()
        self._drain()
        self._look_at_the_end()

    def _until(self, moment: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Look after everything until then, or until ``done``; whether it was done."""
        while True:
            self._stage.tend()
            self._progress()
            if done():
                return True
            remaining_s = moment - time.monotonic()
            if remaining_s <= 0:
                return False
            time.sleep(min(remaining_s, _TEND_EVERY_S))

    def _await_victim(self, step: Step) -> None:
        """Who was just started again cannot be hit before it is there; a plan in time cannot know that."""
        act = self._acts[step.number] = Act(step.fault, step.number, self._stage, self._load)
        self._until(time.monotonic() + _VICTIM_S_MAX, act.possible)
        if self._control is not None:
            self._control.await_busy()

    def _take(self, step: Step) -> None:
        now_s = time.monotonic() - self._begun_at
        if step.what is What.BEGIN:
            act = self._acts[step.number]
            try:
                proof, proven = act.begin(), True
            except FaultUnproven as failure:
                proof, proven = str(failure), False
            self._faults[step.number] = FaultLine(
                text=act.text, lane=act.lane, began_s=now_s, ended_s=None, proof=proof, proven=proven
            )
            self._say("fault", f"{now_s:6.1f} s  {act.text} [{proof}]")
            return
        act, line = self._acts[step.number], self._faults[step.number]
        self._until(time.monotonic() + _SHOWN_S_MAX, act.shown)
        proof, proven = line.proof, line.proven
        if proven:
            try:
                proof = act.end()
            except FaultUnproven as failure:
                proof, proven = str(failure), False
        self._faults[step.number] = FaultLine(
            text=line.text, lane=line.lane, began_s=line.began_s, ended_s=now_s, proof=proof, proven=proven
        )
        self._say("fault", f"{now_s:6.1f} s  over: {line.text} [{proof}]")

    def _progress(self) -> None:
        now = time.monotonic()
        if now < self._progress_at + _PROGRESS_EVERY_S or not self._begun_at:
            return
        self._progress_at = now
        calls = list(self._load.calls)
        ends = [made.call.ending.end for made in calls if made.call.ending is not None]
        answered = ends.count(End.OK) + ends.count(End.ACCEPTED)
        self._say(
            "progress",
            f"{now - self._begun_at:6.1f} s  {self._load.phase}: {len(calls)} calls, {answered} answered, "
            f"{len(ends) - answered} failed, {len(calls) - len(ends)} open",
        )

    # --- waiting for things to be right -------------------------------------------------------------

    def _await_workers(self) -> None:
        if not self._until(time.monotonic() + 15.0, lambda: not self._absent_workers(0.0)):
            raise StartFailed(f"before any fault: {self._absent_workers(0.0)}")

    def _try_guest(self, guest: Guest) -> None:
        """What fails when nothing is broken says nothing of what happens when something is."""
        address = next(iter(self._stage.watch_addresses().values()))
        with Client(address, timeout=_TRY_S_MAX) as client:
            for service, arguments in guest.calls:
                try:
                    client.call(service, *arguments)
                except RequestError as error:
                    how = "say how to call it with --call 'SERVICE [ARGUMENTS]'"
                    raise StartFailed(f"before any fault {service}{arguments!r} failed: {error}; {how}") from error

    def _absent_workers(self, since: float) -> str:
        """What is not in order by the brokers' words since then: workers, or the queue; empty if all is well."""
        for broker, names in self._expected_workers().items():
            look = self._watch.latest(broker, since)
            if look is None:
                return f"{broker} does not answer"
            if look.queued > _QUEUED_MAX:
                return f"{look.queued} requests are queued at {broker}"
            if self._guest is not None and len(look.workers) < len(names):
                return f"{broker} knows {len(look.workers)} workers of {len(names)}"
            for name in sorted(names if self._guest is None else look.workers):
                if look.workers.get(name, "unknown") not in ("idle", "working"):
                    return f"{name} is {look.workers.get(name, 'unknown')} at {broker}"
        return ""

    def _expected_workers(self) -> dict[str, frozenset[str]]:
        names = frozenset(
            worker_name(int(member.name.split()[1]), member.incarnation)
            for member in self._stage.members.values()
            if member.name.startswith("worker ")
        )
        return dict.fromkeys(self._stage.watch_addresses(), names)

    def _settle(self) -> None:
        assert self._healed_at is not None
        self._until(self._healed_at + self._scenario.demands.recovery_s, self._has_recovered)
        if self._has_recovered():
            self._recovered_at = time.monotonic()

    def _has_recovered(self) -> bool:
        healed_at = self._healed_at
        assert healed_at is not None
        waiting = set(self._load.names)
        for made in list(self._load.calls):
            ending = made.call.ending
            if made.call.invoked_s >= healed_at and ending is not None and ending.end in (End.OK, End.ACCEPTED):
                waiting.discard(made.call.client)
        if waiting:
            self._missing = f"no reply to a new call of {', '.join(sorted(waiting))}"
            return False
        self._missing = self._absent_workers(healed_at)
        return not self._missing

    def _drain(self) -> None:
        self._until(time.monotonic() + _DRAIN_S_MAX, lambda: self._load.over)

    def _look_at_the_end(self) -> None:
        """After the last call: no worker may go on being busy with nothing, two heartbeats later."""
        self._expected = self._expected_workers()
        since = time.monotonic()

        def all_idle() -> bool:
            for broker, names in self._expected.items():
                look = self._watch.latest(broker, since)
                if (
                    look is None
                    or look.queued
                    or any(look.workers.get(name) != "idle" for name in self._known(look, names))
                ):
                    return False
            return True

        self._until(since + max(_IDLE_S_MAX, 4 * self._scenario.topology.heartbeat_s), all_idle)
        for broker in self._expected:
            found = self._watch.latest(broker, since)
            if found is not None:
                self._final[broker] = self._queue(found)
                self._expected[broker] = self._known(found, self._expected[broker])
        self._ended_alone = [
            f"{member.name} ended with {member.child.exit_code}: {member.child.output()[-300:]}"
            for member in self._stage.members.values()
            if member.lost()
        ]

    def _known(self, look: Sample, names: frozenset[str]) -> frozenset[str]:
        """By which names to look for workers: those of a guest have none that we gave them, and are counted."""
        if self._guest is None:
            return names
        missing = len(names) - len(look.workers)
        return frozenset(look.workers) | {f"missing worker {number}" for number in range(1, missing + 1)}

    # --- what came of it ------------------------------------------------------------------------------

    def _queue(self, sample: Sample) -> Queue:
        return Queue(
            at_s=sample.at - self._begun_at,
            broker=sample.broker,
            life=sample.life,
            queued=sample.queued,
            over=sample.over,
            workers=sample.workers,
            counters=sample.counters,
        )

    def _evidence(self) -> Evidence:
        facts = [self._facts(made) for made in self._load.calls]
        history = History(
            calls={found.call.key: found.call for found in facts},
            executions=[run for run in read_executions(self._folder, self._begun_at) if b"control" not in run.key],
            vetoed={ONCE, PARTS, NOTE},
            declared={SAFE, PARTS_AGAIN, STEPS},
        )
        history.capacity = {
            run.worker: 1 if run.worker.startswith("server") else self._capacity(run.worker)
            for run in history.executions
        }
        return Evidence(
            scenario=self._scenario,
            history=history,
            calls=facts,
            faults=[self._faults[number] for number in sorted(self._faults)],
            samples=[self._queue(sample) for sample in self._watch.samples],
            healed_s=self._since(self._healed_at),
            recovered_s=self._since(self._recovered_at),
            missing=self._missing,
            expected=self._expected,
            final=self._final,
            ended_alone=self._ended_alone,
            left=self._left,
        )

    def _capacity(self, worker: str) -> int:
        if worker.startswith(STORM):
            # One process that is many workers of one slot each.
            return max((getattr(fault, "workers", 0) for fault in self._scenario.faults), default=1)
        return self._scenario.topology.concurrency

    def _since(self, moment: float | None) -> float | None:
        return None if moment is None else moment - self._begun_at

    def _facts(self, made: Made) -> CallFacts:
        call, deadline = made.call, made.call.deadline_s
        lag_s = 0.0
        if call.ending is not None and deadline is not None and call.ending.at_s > deadline:
            # One thread of ours measures, another one was late: they are not late at the very same moment, nor alike.
            lag_s = 2 * self._load.lag.worst_s(deadline - _LAG_AROUND_S, call.ending.at_s + _LAG_AROUND_S)
        ended = self._ended_at if call.ending is None else call.ending.at_s
        moved = Call(
            key=call.key,
            client=call.client,
            service=call.service,
            idempotent=call.idempotent,
            invoked_s=call.invoked_s - self._begun_at,
            deadline_s=self._since(deadline),
            phase=call.phase,
            one_way=call.one_way,
            hedged=call.hedged,
            endings=[
                Ending(end.at_s - self._begun_at, end.end, end.outcome, end.error, end.reply) for end in call.endings
            ],
        )
        return CallFacts(
            call=moved,
            kind=made.kind,
            lag_s=lag_s,
            stood_s=self._load.lag.worst_s(call.invoked_s, ended),
            parts=tuple(made.parts),
            parts_wanted=made.parts_wanted,
            part_runs=frozenset(made.part_runs),
            news=tuple(made.news),
            surprise=made.surprise,
        )

    def report(self, evidence: Evidence, *, short: bool, whole_s: float) -> RunReport:
        """The evidence, judged, in the form that is written and shown."""
        checks = judge(evidence)
        runs = runs_by_key(evidence.executions)
        return RunReport(
            scenario=self._scenario.name,
            title=self._scenario.title,
            promise=self._scenario.promise,
            seed=self._seed,
            short=short,
            verdict="passed" if all(check.ok for check in checks) else "failed",
            duration_s=self._ended_at - self._begun_at,
            whole_s=whole_s,
            checks=checks,
            calls=[_call_line(facts, len(runs[facts.call.key])) for facts in evidence.calls],
            faults=list(evidence.faults),
            states=[
                StateLine(who=change.who, at_s=max(0.0, change.at_s - self._begun_at), state=change.state)
                for change in self._stage.states
                if change.at_s <= self._ended_at or not change.who
            ],
            samples=[
                SampleLine(at_s=look.at_s, broker=look.broker, queued=look.queued, workers=dict(look.workers))
                for look in evidence.samples
            ],
            control=None if self._control is None else self._control_line(self._control),
            healed_s=evidence.healed_s,
            recovered_s=evidence.recovered_s,
            figures={**_figures(evidence), "own_lag_s": self._load.lag.worst_s(self._begun_at, self._ended_at)},
        )

    def _control_line(self, control: Control) -> ControlLine:
        waits = [call.ended - call.began for call in control.calls if call.ended is not None]
        hung = next((call for call in control.calls if call.ended is None), None)
        hung_for_s = 0.0 if hung is None else self._ended_at - hung.began
        is_hung = hung is not None and hung_for_s >= _HUNG_MIN_S
        return ControlLine(
            answered=len(waits),
            longest_s=max(waits, default=0.0),
            hung_since_s=self._since(hung.began) if is_hung and hung is not None else None,
            hung_for_s=hung_for_s if is_hung else 0.0,
            calls=[(call.began - self._begun_at, self._since(call.ended)) for call in control.calls],
        )


def _exists(pid: int) -> bool:
    """Not by /proc, which shows the processes outside of a namespace."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _call_line(facts: CallFacts, runs: int) -> CallLine:
    call, ending = facts.call, facts.call.ending
    return CallLine(
        key=call.key.decode(),
        client=call.client,
        service=call.service,
        kind=facts.kind,
        phase=call.phase,
        invoked_s=call.invoked_s,
        deadline_s=call.deadline_s,
        ended_s=None if ending is None else ending.at_s,
        end="hung" if ending is None else ending.end.value,
        error="" if ending is None else ending.error,
        outcome="" if ending is None else ending.outcome.name,
        runs=runs,
    )


def _figures(evidence: Evidence) -> dict[str, float]:
    waits = sorted(
        ending.at_s - facts.call.invoked_s
        for facts in evidence.calls
        if (ending := facts.call.ending) is not None and ending.end is End.OK
    )
    if not waits:
        return {}
    return {
        "p50_s": waits[len(waits) // 2],
        "p99_s": waits[min(len(waits) - 1, int(len(waits) * 0.99))],
        "max_s": waits[-1],
    }
