#!/usr/bin/env python3
"""Kill spawnd, or one of its processes, at each step of an order, or have a system call of it fail there.

A step is a system call that others can notice, or one that can fail (`tests/bench/steps.py`). After each, the next
spawnd has to come to a state that the order allows: nothing runs twice, is unknown or left over, services that the
order is not about have the process that they had, and the order succeeds when it is given again. Prints each fault, and
one line of JSON for each order and mode: the number of steps tried, and of faults.

Modes: `spawnd` dies at the step; a `child` does at a step of its own, or `both`; `other`: another process dies at a
step of spawnd, which may be that of the order or a worker; `fail`: one call fails; `failing`: all do from there on, for
a while. With `--again N`, the next N spawnds are killed as well, at random steps of their take-over.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from tests.bench.kill_points_orders import Order, orders
from tests.bench.kill_points_services import NAMES, ON_DEMAND_NAMES
from tests.bench.kill_points_world import Rows, World, world_of
from tests.bench.steps import Act, Step, Tracer
from tests.daemon import children, command_name, start_time, wait_until

FAILING = 1.5  # seconds for which calls go on failing
LATEST = 150  # steps of a take-over, of which a random one is the last of the next spawnd
LOG_WORKER = "spawnd: log"
HELD = 0.4  # seconds that the others stay stopped while the next spawnd takes over


class Call:
    """An order in a thread of its own."""

    def __init__(self, act: Callable[[], int]) -> None:
        self.status: int | None = None
        self.done = Event()
        self._act = act
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with suppress(Exception):  # the connection is lost with spawnd
            self.status = self._act()
        self.done.set()

    def join(self) -> None:
        self._thread.join()


def act_of(mode: str, number: int, spawnd: int, others: Set[int] = frozenset(), spared: Set[int] = frozenset()) -> Act:
    """Return whom to kill at a step: at step `number`, or with `failing` from there on.

    Another process is a child of spawnd or one of `others`, and none of those `spared`.
    """

    def another(step: Step) -> Sequence[int]:
        alive = {pid for pid in others if start_time(pid) is not None}
        found = sorted((alive | set(children(spawnd))) - spared)
        return (found[number % len(found)],) if found else ()

    victims: dict[str, Callable[[Step], Sequence[int]]] = {
        "spawnd": lambda step: (spawnd,),
        "child": lambda step: (step.pid,),
        "both": lambda step: (spawnd, step.pid),
        "other": another,
        "fail": lambda step: (spawnd,),
        "failing": lambda step: (spawnd,),
    }
    choose, is_last = victims[mode], mode != "failing"
    return lambda step: choose(step) if step.number == number or (step.number > number and not is_last) else ()


class Round:
    """One order with one interruption."""

    def __init__(self, world: World, order: Order, mode: str, number: int, again: Sequence[int], holds: bool) -> None:
        self._world = world
        self._daemon = world.daemon
        self._order = order
        self._mode = mode
        self._number = number
        self._again = again
        self._holds = holds
        self._what = ""
        self.steps = 0  # of the order, as far as it went

    def run(self) -> bool:
        """Return whether the order has such a step."""
        world, order = self._world, self._order
        before = world.settle()
        if order.target and before[order.target]["state"] != order.before:
            order.get_before(world)
            before = world.settle()
        world.check_session(str(order), None)
        if before.get("sessions", {}).get("state") == "running":
            world.keep_session()
        self._notify = before["notify"]["pid"]
        self._others = world.pids()  # children of a spawnd that was lost are orphans
        self._spared = {row["pid"] for name, row in before.items() if row["pid"] and name != order.target}
        world.new_log()
        order.prepare(world)
        call, step = self._interrupt()
        self._what = f"{order}, {self._mode} at step {step}{' held' if self._holds else ''}"
        try:
            self._go_on()
            call.join()
            self._judge(before, call.status)
        except Exception as error:
            world.faults.append(f"{self._what}: {type(error).__name__}: {error}; {world.new_log()[-1500:]}")
        return bool(step)

    def _interrupt(self) -> tuple[Call, str]:
        """Give the order, and return it with the step at which it was interrupted."""
        world, daemon, spawnd = self._world, self._daemon, self._daemon.pid
        traced = [spawnd, *(pid for pid in {*children(spawnd), *self._others} if is_ours(pid))]
        whose: dict[str, tuple[Set[int], Set[int]]] = {  # the processes whose calls count, all if none; and do not
            "child": (set(), {spawnd}),
            "both": (set(), {spawnd}),
            "other": ({spawnd}, set()),
        }
        fails = spawnd if self._mode.startswith("fail") else 0
        log = daemon.folder / "steps"
        act = act_of(self._mode, self._number, spawnd, self._others, self._spared)
        tracer = Tracer(traced, act, log, self._holds, fails, *whose.get(self._mode, (set(), set())))
        world.own.add(tracer.pid)
        call = Call(lambda: self._order.act(world))
        done = False
        while not done and not call.done.is_set() and not daemon.ended():
            done = tracer.wait_done(0.02)
        done = done or tracer.wait_done(0.3)
        if done and fails:
            call.done.wait(FAILING if self._mode == "failing" else 20)
        elif done and self._holds and self._mode != "child":
            wait_until(daemon.ended, "its end")
            daemon.start()
            time.sleep(HELD)
        lines = tracer.close()
        self.steps = len(lines)
        world.own.discard(tracer.pid)
        world.faults += [line for line in lines if line.startswith("ERROR")]
        return call, next((line for line in lines if line.startswith(f"{self._number} ")), "")

    def _go_on(self) -> None:
        """Have a spawnd that goes on, after further losses of those in between."""
        daemon = self._daemon
        if self._mode in ("spawnd", "both") and not self._holds:
            wait_until(lambda: daemon.ended() or daemon.answers(), "its end")
        word = self._say_meanwhile() if daemon.ended() else ""
        for number in self._again if daemon.ended() else ():
            daemon.start()
            tracer = Tracer([daemon.pid], act_of("spawnd", number, daemon.pid), daemon.folder / "steps")
            self._world.own.add(tracer.pid)
            while not (tracer.wait_done(0.02) or daemon.answers() or daemon.ended()):
                pass
            tracer.close()
            self._world.own.discard(tracer.pid)
            if not daemon.ended():
                daemon.lose()
        if daemon.ended():
            daemon.again()
        wait_until(lambda: daemon.answers() or daemon.ended(), "an answer")
        if daemon.ended():
            self._world.faults.append(f"{self._what}: spawnd has ended; {self._world.new_log()[-800:]}")
            daemon.again()
        if word:
            self._world.hear(self._what, word)

    def _say_meanwhile(self) -> str:
        """Have a service say a word while there is no spawnd, and return it if it must be in the log."""
        # its log has no reader while a log worker is replaced
        has_reader = any(command_name(pid) == LOG_WORKER for pid in self._world.orphans())
        is_sure = has_reader and self._mode == "spawnd" and self._order.target != "notify"
        return self._world.say_as(self._notify) if is_sure and self._notify else ""

    def _judge(self, before: Rows, status: int | None) -> None:
        world, order, what = self._world, self._order, self._what
        after = world.settle()
        state = after[order.target]["state"] if order.target else ""
        # an order for which a call fails may fail as well, if the next one succeeds
        allowed = {order.after, order.before, "failed" if self._mode.startswith("fail") else order.before}
        if order.target and state not in ({order.after} if status == 0 else allowed):
            world.faults.append(f"{what}: {order.target} is {state}, answer {status}; {world.new_log()[-800:]}")
        for name, old in before.items():
            new = after.get(name)
            if order.spares(name) and (new is None or (new["pid"], new["state"]) != (old["pid"], old["state"])):
                world.faults.append(f"{what}: {name} was {old['state']} {old['pid']}, is {new and new['state']}")
        world.check(what, order.target)
        world.check_session(what, order.keeps_session(state, status))
        order.judge(world, what, self._mode)
        if order.do and (state != order.after or order.after == order.before):
            status = world.ctl(*order.do)
            state = world.settle()[order.target]["state"]
            if status != 0 or state != order.after:
                world.faults.append(f"{what}: once more: status {status}, {state}")
        if order.undo and world.ctl(*order.undo) != 0:
            world.faults.append(f"{what}: not undone; {world.new_log()[-800:]}")
        for name, row in world.settle().items():
            if row["state"] == "failed":
                world.faults.append(f"{what}: {name} has failed; {world.new_log()[-800:]}")
                world.ctl("start", name)
        world.check_words(what)
        world.check(f"{what}, undone", order.target)
        world.compare_files(what)


def is_ours(pid: int) -> bool:
    """Return whether a process of spawnd runs code of ours: a worker or an acceptor."""
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/exe").rpartition("/")[2].startswith(("python", "acceptor"))
    return False


class Progress:
    """The steps that were tried, a line of JSON each, in a file if there is one: none is tried twice."""

    def __init__(self, path: Path | None, variant: str) -> None:
        self._path = path
        self._variant = variant
        self._tried: set[tuple[str, str, int]] = set()
        self._ends: dict[tuple[str, str], int] = {}
        for line in path.read_text().splitlines() if path is not None and path.exists() else ():
            variant, order, mode, number, reached, steps, _faults = json.loads(line)
            if variant == self._variant:
                self._note(order, mode, number, reached, steps)

    def _note(self, order: str, mode: str, number: int, reached: bool, steps: int) -> None:
        self._tried.add((order, mode, number))
        if not reached:
            self._ends[order, mode] = min(self._ends.get((order, mode), number), number)

    def is_tried(self, order: str, mode: str, number: int) -> bool:
        return (order, mode, number) in self._tried

    def end(self, order: str, mode: str) -> int:
        """Return the first step that an order was found not to have."""
        return self._ends.get((order, mode), sys.maxsize)

    def add(self, order: str, mode: str, number: int, reached: bool, steps: int, faults: Sequence[str]) -> None:
        self._note(order, mode, number, reached, steps)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps([self._variant, order, mode, number, reached, steps, [*faults]]) + "\n")


def try_steps(
    world: World, order: Order, mode: str, arguments: argparse.Namespace, until: float, progress: Progress
) -> dict[str, object]:
    chance = random.Random(arguments.seed)
    rounds, faults = 0, 0
    for number in range(arguments.first, arguments.most, arguments.stride):
        if time.monotonic() > until or number >= progress.end(str(order), mode):
            break
        if progress.is_tried(str(order), mode, number):
            continue
        again = [chance.randrange(1, LATEST) for _ in range(arguments.again)]
        tried = Round(world, order, mode, number, again, arguments.holds)
        reached = tried.run()
        for fault in world.faults:
            print("FAULT", fault, file=sys.stderr, flush=True)
        progress.add(str(order), mode, number, reached, tried.steps, world.faults)
        faults += len(world.faults)
        world.faults.clear()
        rounds += reached
    return {"order": str(order), "mode": mode, "steps": rounds, "faults": faults}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--targets", default=",".join((*NAMES, *ON_DEMAND_NAMES)))
    parser.add_argument("--orders", default="", help="names of orders, such as stop,wake; all by default")
    parser.add_argument("--modes", default="spawnd,child,both,other,fail,failing")
    parser.add_argument("--cgroup", action="store_true", help="a cgroup for each service")
    parser.add_argument("--stride", type=int, default=1, help="every so many steps")
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first step")
    parser.add_argument("--most", type=int, default=100_000, help="steps of an order")
    parser.add_argument("--again", type=int, default=0, help="further losses after each")
    parser.add_argument("--holds", action="store_true", help="others stay stopped while the next spawnd takes over")
    parser.add_argument("--seconds", type=float, default=1e9, help="steps are tried for so long")
    parser.add_argument("--shuffle", action="store_true", help="orders and modes in random order")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--progress", type=Path, help="a file of the steps that were tried, which are not tried again")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.seconds
    targets = [target for target in arguments.targets.split(",") if target]
    on_demand = not set(targets).isdisjoint(ON_DEMAND_NAMES)
    variant = f"cgroup={arguments.cgroup} holds={arguments.holds} again={arguments.again} on-demand={on_demand}"
    progress = Progress(arguments.progress, variant)
    chosen = set(arguments.orders.split(",")) - {""}
    with world_of(arguments.cgroup, on_demand) as world:
        every = [order for order in orders(targets) if not chosen or order.name in chosen]
        pairs = [(order, mode) for order in every for mode in arguments.modes.split(",")]
        if arguments.shuffle:
            random.Random(arguments.seed).shuffle(pairs)
        for order, mode in pairs:
            print(json.dumps(try_steps(world, order, mode, arguments, until, progress)), flush=True)


if __name__ == "__main__":
    main()
