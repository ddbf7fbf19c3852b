"""Attributes about clients as entries of `accept`."""

from __future__ import annotations

from importer.values import Value
from importer.xinetd import values
from importer.xinetd.files import Attribute
from importer.xinetd.service import BadValue, Service

_LOGGED = frozenset({"PID", "HOST", "EXIT", "DURATION"})
_ALL_SESSIONS = 16384  # the most that a definition can have
_WITHOUT_MEANING = frozenset("log_on_success log_on_failure instances per_source".split())
_WAITS = "everybody reaches a program that waits: a firewall says who may connect"


def without_connections(service: Service, name: str) -> None:
    """Say what becomes of an attribute of this page for a program that gets the socket."""
    if name in _WITHOUT_MEANING:
        service.carried(name)
    elif name == "cps":
        service.approximate(name, "a program that fails is started again after growing delays")
    elif name in ("only_from", "no_access"):
        service.left_out(name, _WAITS)
    else:
        service.left_out(name, "it needs a process for each connection")


def instances(service: Service, name: str) -> None:
    text = service.only(name)
    if text.upper() == values.UNLIMITED:
        service.approximate(name, "there is always a limit")
        service.accept["max"] = _ALL_SESSIONS
        return
    service.carried(name)
    service.accept["max"] = _integer(name, text, 1)
    service.accept["on_limit"] = "refuse"


def per_source(service: Service, name: str) -> None:
    text = service.only(name)
    if text.upper() != values.UNLIMITED:
        service.accept[name] = _integer(name, text, 1)
    service.carried(name)


def cps(service: Service, name: str) -> None:
    found = service.attributes.values(name)
    if not 1 <= len(found) <= 2:
        raise BadValue(f"{name}: one or two numbers expected")
    rate = _integer(name, found[0], 1)
    service.approximate(name, "more clients wait, and nothing is switched off")
    service.accept["rate"], service.accept["burst"] = f"{rate}/s", rate


def addresses(service: Service, name: str) -> None:
    """Carry over `only_from` and `no_access`; names of hosts are left out, and only_from never becomes wider."""
    good: list[Value] = []
    named: dict[Attribute, list[str]] = {}
    for attribute, text in service.attributes.items(name):
        found = values.networks(text)
        if found is None:
            named.setdefault(attribute, []).append(repr(text))
        else:
            good += [network for network in found if network not in good]
    for attribute in service.attributes.of(name):
        if attribute in named:
            fate = "refused" if name == "only_from" else "let in"
            text = f"names are not looked up; {fate}: {', '.join(named[attribute])}"
            service.ledger.left_out(attribute.directive, text, service.definition)
        else:
            service.ledger.carried(attribute.directive)
    if good or name == "only_from":
        service.accept[name] = good


def access_times(service: Service, name: str) -> None:
    spans = [values.hours(text) for text in service.attributes.values(name)]
    if None in spans:
        raise BadValue(f"{name}: HOUR:MINUTE-HOUR:MINUTE expected")
    service.carried(name)
    service.accept["hours"] = [span for span in spans if span]


def max_load(service: Service, name: str) -> None:
    number = values.decimal(service.only(name))
    if number is None:
        raise BadValue(f"{name}: a number expected")
    service.carried(name)
    service.accept["load_max"], service.accept["on_limit"] = number, "refuse"


def banner(service: Service, name: str) -> None:
    """Carry over a file for all clients, or for those that are let in, or not."""
    path = service.only(name)
    if not path.startswith("/"):
        raise BadValue(f"{name}: {path!r} is no absolute path")
    service.carried(name)
    if name != "banner_fail":
        service.accept["banner"] = path
    if name != "banner_success":
        service.accept["banner_refused"] = path


def log_on(service: Service, name: str) -> None:
    """Say what is logged; sessions that fail and clients that are refused are so by default."""
    words = {word.upper() for word in service.attributes.values(name)}
    if "USERID" in words:
        service.left_out(name, "the client's host would answer what it wants to USERID")
    elif "TRAFFIC" in words:
        service.left_out(name, "TRAFFIC is about 'redirect'")
    else:
        service.carried(name)
    if name == "log_on_success" and words & _LOGGED:
        service.accept["session_log"] = "all"
    elif not words and not service.attributes.values("log_on_success"):
        service.accept["session_log"] = "none"


def deny_time(service: Service, name: str) -> None:
    text = service.only(name).upper()
    if "SENSOR" not in service.flags():
        service.left_out(name, "it is for services with the flag SENSOR")
        return
    service.carried(name)
    if text == "FOREVER":
        service.accept[name] = False
    elif text == "NEVER":
        service.accept["only_from"] = []
    else:
        service.accept[name] = f"{_integer(name, text, 1)}m"


def _integer(name: str, text: str, least: int) -> int:
    number = values.integer(text, least)
    if number is None:
        raise BadValue(f"{name}: a number of at least {least} expected, not {text!r}")
    return number


HANDLERS = {
    "only_from": addresses,
    "no_access": addresses,
    "access_times": access_times,
    "instances": instances,
    "per_source": per_source,
    "cps": cps,
    "max_load": max_load,
    "banner": banner,
    "banner_success": banner,
    "banner_fail": banner,
    "deny_time": deny_time,
    "log_on_success": log_on,
    "log_on_failure": log_on,
}
