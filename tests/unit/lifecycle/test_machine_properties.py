"""The state machine against a world in which everything happens that can, in any order.

The model holds what the caller of the machine would: the process, the clock, and whether
the operator wants the service.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from supervisor.definitions.service import Backoff, Service
from supervisor.lifecycle import machine
from supervisor.lifecycle.life import AT_REST, WITH_PROCESS, Act, Cause, Life, State, Step, Then, Transition, runs

UP = (State.RUNNING, State.RELOADING)
STARTS = (State.WAITING, State.STARTING)
TIMED = {State.STARTING, State.RELOADING, State.STOPPING, State.BACKOFF}
FAILURES = {
    Cause.EXIT, Cause.CHECK, Cause.CHECK_LATE, Cause.NOT_READY, Cause.WATCHDOG, Cause.FUNCTION, Cause.FUNCTION_LATE,
    Cause.KEPT,
}  # fmt: skip
WANTED = {Cause.START, Cause.RESTART}
CALLS = {Act.CALL_START, Act.CALL_RESTART, Act.CALL_STOP}
SIGNALS = {Act.STOP_SIGNAL, Act.HANDOVER_SIGNAL, Act.ABORT, Act.KILL}

seconds = st.floats(0, 200)
spreads = st.floats(-1, 1)



def valid(service: Service) -> Service:
    """Keys about a process are left out if there is none."""
    return service if service.has_process else replace(service, ready="exec", watchdog=None, handover_signal=None)


services = st.builds(
    Service,
    name=st.just("a"),
    exec=st.sampled_from(["/bin/a", "/bin/a", ""]),
    functions=st.one_of(st.just(()), st.lists(st.sampled_from(["start", "stop", "restart"]), unique=True).map(tuple)),
    task=st.booleans(),
    restart=st.sampled_from(["always", "on-failure", "never"]),
    healthy_after=st.sampled_from([0.0, 1.0, 50.0]),
    backoff=st.builds(
        Backoff, first=st.floats(0.01, 1), factor=st.floats(1, 4), max=st.floats(1, 60), jitter=st.floats(0, 1)
    ),
    start_limit=st.sampled_from([None, 1, 2, 3, 10]),
    ready=st.sampled_from(["exec", "notify", "fd"]),
    start_timeout=st.sampled_from([None, 1.0, 90.0]),
    stop_timeout=st.sampled_from([None, 0.5, 10.0]),
    handover_signal=st.sampled_from([None, 10]),
    kill_mode=st.sampled_from(["all", "group", "mixed", "process"]),
    watchdog=st.sampled_from([None, 5.0]),
    check=st.sampled_from([(), ("/bin/true",)]),
).map(valid)


class World(RuleBasedStateMachine):
    service: Service

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.life = Life()
        self.process: Act | None = None  # what the living process is: CHECK, LAUNCH or a call
        self.executed = False
        self.set_up = False  # whether a call of `stop` is due before the next one of `start`
        self.wanted = False

    @initialize(service=services)
    def define(self, service: Service) -> None:
        self.service = service

    def event(self, event: Callable[..., Transition], *args: Any, fork_fails: bool = False) -> None:
        before = self.life
        self.life, acts = event(self.service, before, self.now, *args)
        self.check_step(before, acts)
        if not self.service.has_process and self.life.starts > before.starts:
            self.set_up = bool(self.service.functions) and not self.service.task  # of a task `stop` is never called
        for act in acts:
            if act is Act.END_LEFT:
                assert self.process is None
                self.event(machine.exited, False, "gone", 0.5)
            if act in (Act.LAUNCH, Act.CHECK, *CALLS):
                self.check_call(act)
                assert self.process is None, "two processes"
                if fork_fails:
                    self.set_up = self.set_up or act is Act.CALL_STOP  # it stays due
                    self.event(machine.start_failed, "no fork", 0.5)
                else:
                    self.process, self.executed = act, False

    def check_call(self, act: Act) -> None:
        """Each `stop` belongs to one `start` or `restart`, and `restart` comes to what is set up alone."""
        match act:
            case Act.CALL_START:
                assert not (self.set_up and "stop" in self.service.functions), "two starts without a stop"
                self.set_up = False
            case Act.CALL_RESTART:
                assert self.set_up
            case Act.CALL_STOP:
                assert self.set_up, "a stop without a start"
                self.set_up = False
            case Act.LAUNCH:
                assert not ("start" in self.service.functions and not self.set_up), "no start"
                self.set_up = bool(self.service.functions)
        if act in CALLS:
            assert act.value.removeprefix("run its function ") in self.service.functions

    def check_step(self, before: Life, acts: tuple[Act, ...]) -> None:
        life = self.life
        entered = before.state != life.state
        assert len(acts) <= 1
        if SIGNALS & {*acts}:
            assert life.state is State.STOPPING
            assert self.process is not None, "a signal to nobody"
        if Act.DRAIN in acts:
            assert (life.state, life.step, life.then) == (State.STOPPING, Step.DRAIN, Then.START)
            assert self.process is Act.LAUNCH
        ended = entered and life.state in AT_REST and before.state not in AT_REST
        assert (Act.RELEASE in acts) is ended
        failed = entered and before.state in WITH_PROCESS and life.state in (State.BACKOFF, State.FAILED)
        is_last = before.step in (Step.TEARDOWN, Step.LAST)
        not_stopped = is_last and before.then is Then.REST and life.state is State.FAILED
        if failed and not not_stopped:
            assert life.failures == before.failures + 1
        else:
            assert life.failures in (before.failures, 0)
        if entered and life.state is State.BACKOFF:
            self.check_wait(life)
        if entered and life.state is State.FAILED and not not_stopped:
            assert self.service.restart == "never" or life.failures == self.service.start_limit
        if entered:
            assert life.since == self.now
        if Act.LAUNCH in acts:
            assert life.starts == before.starts + 1
            assert (life.state, life.step) in ((State.STARTING, Step.EXEC), (State.STOPPING, Step.LAST))
        elif not self.service.has_process and before.state in STARTS and life.state in (State.RUNNING, State.DONE):
            assert life.starts == before.starts + 1
        else:
            assert life.starts == before.starts

    def check_wait(self, life: Life) -> None:
        backoff = self.service.backoff
        assert life.deadline is not None
        wait = life.deadline - life.since
        least = min(backoff.first, backoff.max) * (1 - backoff.jitter)
        assert least - 1e-9 <= wait <= backoff.max * (1 + backoff.jitter) + 1e-9

    # what the operator wants

    @rule(fork_fails=st.booleans())
    def start(self, fork_fails: bool) -> None:
        self.wanted = True
        self.event(machine.start, fork_fails=fork_fails)

    @rule(drains=st.booleans(), fork_fails=st.booleans())
    def restart(self, drains: bool, fork_fails: bool) -> None:
        self.wanted = True
        self.event(machine.restart, Cause.RESTART, "", drains, fork_fails=fork_fails)

    @rule(event=st.sampled_from([machine.drained, machine.resumed]))
    def old_sockets_are_looked_at(self, event: Callable[..., Transition]) -> None:
        self.event(event)

    @rule(fork_fails=st.booleans())
    def stop(self, fork_fails: bool) -> None:
        self.wanted = False
        self.event(machine.stop, fork_fails=fork_fails)

    @rule()
    def reset(self) -> None:
        self.event(machine.reset)

    # what happens

    @precondition(lambda self: self.life.state is State.WAITING)
    @rule(fork_fails=st.booleans())
    def dependencies_met(self, fork_fails: bool) -> None:
        self.event(machine.dependencies_met, fork_fails=fork_fails)

    @precondition(lambda self: self.process is Act.LAUNCH and not self.executed)
    @rule()
    def execute(self) -> None:
        self.executed = True
        self.event(machine.executed)

    @precondition(lambda self: self.process is Act.LAUNCH)
    @rule(event=st.sampled_from([machine.ready, machine.reloading, machine.alive, machine.watchdog_missed]))
    def notify(self, event: Callable[..., Transition]) -> None:
        self.event(event)

    @precondition(lambda self: self.process is Act.LAUNCH)
    @rule(more=seconds)
    def extend(self, more: float) -> None:
        before = self.life.deadline
        self.event(machine.extended, more)
        assert before is None or (self.life.deadline is not None and self.life.deadline >= before)

    @precondition(lambda self: self.process is not None)
    @rule(clean=st.booleans(), spread=spreads, fork_fails=st.booleans())
    def exit(self, clean: bool, spread: float, fork_fails: bool) -> None:
        before = self.life
        self.ended(clean)
        self.event(machine.exited, clean, "gone", spread, fork_fails=fork_fails)
        is_over = self.life.step is not Step.TEARDOWN
        if is_over and before.state in UP and before.up_since is not None and self.service.restart == "always":
            healthy = self.now - before.up_since >= self.service.healthy_after
            if healthy and not (self.service.task and clean):
                assert (self.life.state, self.life.failures) == (State.WAITING, 0), "a healthy one waits"

    def ended(self, clean: bool) -> None:
        """Note the effect of a call that set something up, and of one that was to do so again and failed."""
        if self.process in (Act.CALL_START, Act.CALL_RESTART):
            self.set_up = clean or self.process is Act.CALL_RESTART
        self.process = None

    @rule(lives=st.booleans(), spread=spreads, fork_fails=st.booleans())
    def lose_spawnd(self, lives: bool, spread: float, fork_fails: bool) -> None:
        """The next one finds the process or not; a check is ended, whatever it does."""
        if self.process is Act.CHECK:
            self.process = None
        alive = self.process is not None and lives
        self.event(machine.recovered, alive)
        if alive:
            self.executed = True
        elif runs(self.service, self.life):
            self.ended(False)
            self.event(machine.exited, False, "gone", spread, fork_fails=fork_fails)

    @rule(step=seconds, fork_fails=st.booleans())
    def time_passes(self, step: float, fork_fails: bool) -> None:
        self.now += step
        self.ring(fork_fails)

    @precondition(lambda self: self.life.due() is not None)
    @rule(fork_fails=st.booleans())
    def it_is_due(self, fork_fails: bool) -> None:
        self.now = max(self.now, self.life.due() or 0.0)
        self.ring(fork_fails)

    def ring(self, fork_fails: bool) -> None:
        due = self.life.due()
        if due is not None and due <= self.now:
            before = self.life
            self.event(machine.timed_out, fork_fails=fork_fails)
            assert self.life != before, "it would ring for ever"

    # what always holds

    @invariant()
    def process_and_state_agree(self) -> None:
        if hasattr(self, "service"):
            assert runs(self.service, self.life) is (self.process is not None)

    @invariant()
    def times_belong_to_states(self) -> None:
        life = self.life
        assert life.deadline is None or life.state in TIMED
        assert life.watchdog_at is None or life.state in UP
        assert life.up_since is None or life.state in (*UP, State.STOPPING)
        assert not life.killed or life.state is State.STOPPING
        if life.state in UP:
            assert life.up_since is not None
            assert (life.watchdog_at is None) is (self.service.watchdog is None)
        if life.state is State.STOPPING and self.limit_of_stop() is not None:
            assert life.killed or life.deadline is not None
        if life.state is State.BACKOFF:
            assert life.deadline is not None

    def limit_of_stop(self) -> float | None:
        is_call = self.life.step is Step.TEARDOWN
        return self.service.start_timeout if is_call else self.service.stop_timeout

    @invariant()
    def the_cause_fits_the_state(self) -> None:
        life = self.life
        match life.state:
            case State.STOPPED:
                assert life.cause in {Cause.NEW, Cause.STOP, Cause.RESET, Cause.EXIT}
            case State.STOPPING if life.then is Then.REST:
                assert life.cause is Cause.STOP
            case State.STOPPING if life.then is Then.START and life.step is not Step.TEARDOWN:
                assert life.cause in WANTED
            case State.STOPPING if life.then is Then.START:  # after a failure, where `stop` could not be called before
                assert life.cause in WANTED | FAILURES
            case State.STOPPING:
                assert life.cause in FAILURES - ({Cause.EXIT, Cause.CHECK} if life.step is not Step.TEARDOWN else set())
            case State.BACKOFF | State.FAILED:
                assert life.cause in FAILURES
            case State.DONE:
                assert life.cause is Cause.EXIT
            case _:
                assert life.cause in WANTED | FAILURES
                assert life.restarts == 0 or life.cause in FAILURES

    @invariant()
    def a_stop_is_never_lost(self) -> None:
        life = self.life
        if not self.wanted:
            assert life.state in AT_REST or (life.state is State.STOPPING and life.then is Then.REST)
        elif life.state is State.STOPPING:
            assert life.then in (Then.START, Then.FAIL, Then.END)

    @invariant()
    def the_limit_is_kept(self) -> None:
        limit = getattr(self, "service", Service("a")).start_limit
        if limit is not None and self.life.state is not State.FAILED:
            assert self.life.failures < limit

    def teardown(self) -> None:
        """Whatever happened: after a stop it is at rest, at the latest when KILL has done its work."""
        if not hasattr(self, "service"):
            return
        self.wanted = False
        self.event(machine.stop)
        while self.life.state is State.STOPPING:
            while self.limit_of_stop() is not None and not self.life.killed:  # a last process is told first
                due = self.life.due()
                assert due is not None
                self.now = max(self.now, due)
                self.event(machine.timed_out)
            self.ended(False)
            self.event(machine.exited, False, "killed", 0.0)
        assert self.life.state in AT_REST
        assert self.life.due() is None
        self.process_and_state_agree()


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
