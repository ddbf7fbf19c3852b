#!/usr/bin/env python3
"""Kill spawnd, or one of its processes, at each step of an order, or have a system call of it fail there.

A step is a system call that others can notice, or one that can fail (`tests/bench/steps.py`). After each, the next
spawnd has to come to a state that the order allows: nothing runs twice, is unknown or left over, services that the
order is not about have the process that they had, and the order succeeds when it is given again. Prints each fault, and
one line of JSON for each order and mode: the number of steps tried, and of faults.

Modes: `spawnd` dies at the step, a `child` does, or `both`; `fail`: one call fails; `failing`: all do from there on,
for a while. With `--again N`, the next N spawnds are killed as well, at random steps of their take-over.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Thread

from tests.bench.kill_points_orders import Order, orders
from tests.bench.kill_points_world import Rows, World, world_of
from tests.bench.steps import Act, Step, Tracer
from tests.daemon import children, command_name, wait_until

FAILING = 1.5  # seconds for which calls go on failing
LATEST = 150  # steps of a take-over, of which a random one is the last of the next spawnd
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


def act_of(mode: str, number: int, spawnd: int) -> Act:
    """Return whom to kill at a step: at step `number`, or with `failing` from there on."""
    victims: dict[str, Callable[[Step], Sequence[int]]] = {
        "spawnd": lambda step: (spawnd,),
        "child": lambda step: (step.pid,) if step.pid != spawnd else (),
        "both": lambda step: (spawnd, step.pid),
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

    def run(self) -> bool:
        """Return whether the order has such a step."""
        world, order = self._world, self._order
        before = world.settle()
        if order.target and before[order.target]["state"] != order.before:
            world.ctl("start" if order.before == "running" else "stop", order.target)
            before = world.settle()
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
        traced = [spawnd, *(pid for pid in children(spawnd) if command_name(pid).startswith(("spawnd", "python")))]
        fails = spawnd if self._mode.startswith("fail") else 0
        log = daemon.folder / "steps"
        tracer = Tracer(traced, act_of(self._mode, self._number, spawnd), log, self._holds, fails)
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
        world.own.discard(tracer.pid)
        world.faults += [line for line in lines if line.startswith("ERROR")]
        return call, next((line for line in lines if line.startswith(f"{self._number} ")), "")

    def _go_on(self) -> None:
        """Have a spawnd that goes on, after further losses of those in between."""
        daemon = self._daemon
        if self._mode in ("spawnd", "both") and not self._holds:
            wait_until(lambda: daemon.ended() or daemon.answers(), "its end")
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
        world.check(what)
        order.judge(world, what)
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
        world.check(f"{what}, undone")
        world.compare_files(what)


def try_steps(world: World, order: Order, mode: str, arguments: argparse.Namespace, until: float) -> dict[str, object]:
    chance = random.Random(arguments.seed)
    number, rounds, faults = arguments.first, 0, 0
    reached = True
    while reached and number < arguments.most and time.monotonic() < until:
        again = [chance.randrange(1, LATEST) for _ in range(arguments.again)]
        reached = Round(world, order, mode, number, again, arguments.holds).run()
        for fault in world.faults:
            print("FAULT", fault, file=sys.stderr, flush=True)
        faults += len(world.faults)
        world.faults.clear()
        rounds += reached
        number += arguments.stride
    return {"order": str(order), "mode": mode, "steps": rounds, "faults": faults}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--targets", default="plain,helper,fd,daemon,checked,notify,acc,mod")
    parser.add_argument("--orders", default="stop,start,restart,crash,loss,apply,reexec")
    parser.add_argument("--modes", default="spawnd,child,both,fail,failing")
    parser.add_argument("--cgroup", action="store_true", help="a cgroup for each service")
    parser.add_argument("--stride", type=int, default=1, help="every so many steps")
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first step")
    parser.add_argument("--most", type=int, default=100_000, help="steps of an order")
    parser.add_argument("--again", type=int, default=0, help="further losses after each")
    parser.add_argument("--holds", action="store_true", help="others stay stopped while the next spawnd takes over")
    parser.add_argument("--seconds", type=float, default=1e9, help="steps are tried for so long")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.seconds
    with world_of(arguments.cgroup) as world:
        for order in orders(arguments.targets.split(",")):
            for mode in arguments.modes.split(",") if order.name in arguments.orders.split(",") else ():
                print(json.dumps(try_steps(world, order, mode, arguments, until)), flush=True)


if __name__ == "__main__":
    main()
