"""Conversion of one field of `netns` to the service that keeps the namespace of that name."""

from __future__ import annotations

import os
import re
from typing import Any

from supervisor.definitions.checking import Checking
from supervisor.definitions.convert.plain import choice
from supervisor.definitions.lua import Global
from supervisor.definitions.netns import service_name
from supervisor.definitions.netns.options import COMMON, LEAST_MTU, OPTIONS, link_name, place, unreachable
from supervisor.definitions.problems import InvalidValue, did_you_mean
from supervisor.definitions.scalars import signal_number
from supervisor.definitions.service import KEYS, Descriptor, Service
from supervisor.definitions.services import CONVERT, of_status
from supervisor.definitions.values import describe, table, tag

WORKER = "netns"
SETUP_TIMEOUT = 30.0  # seconds for the setup script
HEALTHY_AFTER = 0.1  # seconds
LONGEST_NAME = 64 - len(service_name(""))

_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.@-]{{0,{LONGEST_NAME - 1}}}")

Values = dict[str, Any]


def wrong(item: Global) -> str:
    """Return why a field of `netns` cannot be a network namespace; '' if it can."""
    name, value = item.name, item.value
    where = f"netns[{describe(name)}]"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        rule = f"up to {LONGEST_NAME} of A-Z a-z 0-9 _ . @ -, the first one a letter, a digit or '_'"
        return f"{where}: this cannot be the name of a network namespace: {rule}"
    if tag(value) not in ("", "pairs") or table(value) is None:
        return f"netns.{name}: has to be a table with names, not {describe(value)}"
    if item.before:
        return f"netns.{name}: is defined on line {item.before} as well"
    return ""


def namespace(name: str, values: Values, checking: Checking) -> Service:
    """Return the service; problems go to `checking`, which has the name of the service."""
    common: Values = {}
    options: Values = {}
    for key, value in sorted(values.items()):  # Lua tables have no order, but messages need one
        try:
            if key in OPTIONS:
                options[key] = OPTIONS[key](value, checking)
            elif key == "status":
                common |= of_status(choice(key, "stop", "start")(value, checking))
            elif key in COMMON:
                common[KEYS[key].field] = CONVERT[key](value, checking)
            else:
                raise InvalidValue(f"unknown key {describe(key)}{did_you_mean(key, [*OPTIONS, *COMMON])}")
        except InvalidValue as error:
            checking.invalid(error, key)
    _check(options, checking)
    return _service(_options(name, options, checking), common, values, checking)


def _check(options: Values, checking: Checking) -> None:
    """Check the keys together."""
    own = options.get("addresses", [])
    listed = options.get("routes", [])
    for index, route in enumerate(listed, 1):
        if unreachable(route, own, listed):
            problem = f"{_NOWHERE.format(route['via'])}; onlink = true sends it there all the same"
            checking.problem(problem, "routes", index)
    for route in options.get("gateway", []):
        if unreachable(route, own, listed):
            example = f'routes = {{ {{ to = "default", via = "{route["via"]}", onlink = true }} }}'
            checking.problem(f"{_NOWHERE.format(route['via'])}; {example} sends it there all the same", "gateway")
    _check_places(options.get("gateway", []), listed, checking)
    both = {address.partition("/")[0] for address in own}
    for route in options.get("gateway", []):
        if route["via"] in both:
            checking.problem(f"{route['via']} is an address of the end inside itself", "gateway")
    for index, address in enumerate(options.get("host_addresses", []), 1):
        if address.partition("/")[0] in both:
            checking.problem(f"{address} is an address of the end inside as well", "host_addresses", index)
    every = [*own, *options.get("host_addresses", [])]
    if "mtu" in options and options["mtu"] < LEAST_MTU[6] and any(":" in address for address in every):
        checking.problem(f"{options['mtu']} is too small for IPv6, which needs {LEAST_MTU[6]}", "mtu")
    _check_ipv6(options, checking)
    if options.get("peer") and options["peer"] == options.get("inside", "net0"):
        checking.problem("is the name inside already", "peer")


def _check_ipv6(options: Values, checking: Checking) -> None:
    """Report IPv6 addresses that the kernel would refuse."""
    settings = options.get("sysctl", {})
    for interface in (options.get("inside", "net0"), "all"):
        value = settings.get(f"net/ipv6/conf/{interface}/disable_ipv6")
        if value is not None:
            break
    else:
        return
    for index, address in enumerate(options.get("addresses", []), 1):
        if ":" in address and value != "0":
            problem = f"{address} cannot be set with sysctl net.ipv6.conf.{interface}.disable_ipv6 = {value}"
            checking.problem(problem, "addresses", index)


def _check_places(gateway: list[Values], listed: list[Values], checking: Checking) -> None:
    taken = {place(route): "gateway" for route in gateway}
    for index, route in enumerate(listed, 1):
        if (other := taken.setdefault(place(route), f"routes[{index}]")) != f"routes[{index}]":
            problem = f"{route['to']} has a route already, {other}; a second one has a metric or a table of its own"
            checking.problem(problem, "routes", index)


_NOWHERE = "{} is in the network of none of the addresses"


def _options(name: str, given: Values, checking: Checking) -> Values:
    """Return the worker's options: complete, except for options that leave a setting unchanged."""
    options: Values = {"name": name, "link": link_name(name), "inside": "net0", "loopback": True} | given
    options.setdefault("setup_timeout", SETUP_TIMEOUT)
    options["routes"] = options.pop("gateway", []) + options.get("routes", [])
    for key in ("addresses", "host_addresses"):
        options.setdefault(key, [])
    return options


def _service(options: Values, common: Values, values: Values, checking: Checking) -> Service:
    lines = {"options": checking.line, "stdout": checking.line}
    lines |= {key: checking.line_of((key,)) for key in values if key in COMMON}
    root = checking.databases.root
    fields: Values = {
        "description": f"network namespace {options['name']}",
        "start_timeout": 60.0 + options["setup_timeout"],
        "stop_timeout": 60.0,
        "stdout": Descriptor("log", name="stdout"),
        # Other services need it, so it is never given up. One that was ready before restarts at once.
        "start_limit": None,
        "healthy_after": HEALTHY_AFTER,
    } | common
    return Service(
        name=checking.name,
        file=checking.file,
        line=checking.line,
        lines=lines,
        worker=WORKER,
        options=options,
        user="root",
        group="root",
        uid=0 if root else os.geteuid(),
        gid=0 if root else os.getegid(),
        umask=0o022,
        ready="notify",
        handover_signal=signal_number("USR1"),
        reload_signal=signal_number("HUP"),
        restart_signal=signal_number("RTMIN+3"),
        kill_mode="process",
        fdstore_max=2,  # the worker's record, and room to send it again: the store keeps it once
        control=True,
        **fields,
    )
