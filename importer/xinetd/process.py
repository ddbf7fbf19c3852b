"""Attributes about the process of a service."""

from __future__ import annotations

import re

from importer.accounts import ANYBODY, set_user
from importer.addresses import number
from importer.values import Value, call
from importer.xinetd import values
from importer.xinetd.service import BadValue, Service

UMASK = "022"  # of xinetd; a definition has 077
_SIZES = {"rlimit_as": "as", "rlimit_data": "data", "rlimit_rss": "rss", "rlimit_stack": "stack"}
_NUMBERS = {"rlimit_cpu": "cpu", "rlimit_files": "nofile"}
_OF_LOGIN = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL"})
_VARIABLE = re.compile(r"([^=]+)=(.*)")


def program(service: Service) -> None:
    """Set the program and its arguments; NAMEINARGS has its name among these."""
    path = service.only("server")
    if not path.startswith("/"):
        raise BadValue(f"server: {path!r} is no absolute path")
    service.definition.set("exec", path)
    service.carried("server")
    arguments = service.attributes.values("server_args")
    if "NAMEINARGS" in service.flags() and arguments:
        own, *arguments = arguments
        if own.rpartition("/")[2] != path.rpartition("/")[2]:
            service.definition.set("argv0", own)
    if arguments:
        service.definition.set("arg", [number(argument) for argument in arguments])
    service.carried("server_args")


def account(service: Service) -> None:
    """Set user and group, also without `user`."""
    user, group = service.attributes.first("user", ANYBODY), service.attributes.first("group")
    directive = next((each.directive for each in service.attributes.of("user")), service.directive)
    service.carried("user")
    service.carried("group")
    service.carried("groups")
    set_user(service.ledger, service.definition, directive, user, group, _boolean(service, "groups"))


def _boolean(service: Service, name: str) -> bool:
    text = service.only(name).lower() if service.attributes.of(name) else "no"
    if text not in ("yes", "no"):
        raise BadValue(f"{name}: yes or no expected, not {text!r}")
    return text == "yes"


def umask(service: Service) -> None:
    text = values.umask(service.only("umask")) if service.attributes.of("umask") else UMASK
    if text is None:
        raise BadValue("umask: an octal number expected")
    service.carried("umask")
    service.definition.set("umask", text)


def nice(service: Service, name: str) -> None:
    value = values.integer(service.only(name), -20)
    if value is None or value > 19:
        raise BadValue(f"{name}: a number from -20 to 19 expected")
    service.carried(name)
    service.definition.set("nice", value)


def environment(service: Service, name: str) -> None:
    found: dict[str, Value] = {}
    for text in service.attributes.values(name):
        match = _VARIABLE.fullmatch(text)
        if match is None:
            raise BadValue(f"{name}: NAME=VALUE expected, not {text!r}")
        found[match[1]] = match[2]
    service.carried(name)
    if found:
        service.definition.set("env", found)


def passed(service: Service, name: str) -> None:
    """Have variables of a login for those that xinetd would pass on."""
    names = set(service.attributes.values(name))
    if names & _OF_LOGIN:
        service.definition.set("login_env", True)
    if names <= _OF_LOGIN:
        service.carried(name)
    else:
        service.left_out(name, f"spawnd passes nothing on: 'env' has values ({', '.join(sorted(names - _OF_LOGIN))})")


def limits(service: Service) -> None:
    found: dict[str, Value] = {}
    for name, limit in (_SIZES | _NUMBERS).items():
        if service.attributes.of(name):
            text = service.only(name)
            value = values.size(text) if name in _SIZES or text.upper() == values.UNLIMITED else values.integer(text)
            if value is None:
                raise BadValue(f"{name}: a number or UNLIMITED expected, not {text!r}")
            service.carried(name)
            found[limit] = value
    if found:
        service.definition.set("limits", found)


def log_type(service: Service) -> None:
    """Set `stderr`, also without the attribute."""
    match service.attributes.values("log_type"):
        case ["FILE", path, *bounds] if path.startswith("/"):
            more = ", and logrotate bounds its size" if bounds else ""
            service.approximate("log_type", f"spawnd's log has the lines about clients{more}")
            service.definition.set("stderr", call("file", path, "a"))
            return
        case ["SYSLOG", *_]:
            service.approximate("log_type", "the log, which may pass everything on to syslog")
        case [_, *_]:
            raise BadValue("log_type: FILE with an absolute path, or SYSLOG expected")
    service.definition.set("stderr", call("log"))


LIMITS = tuple(_SIZES | _NUMBERS)
HANDLERS = {"nice": nice, "env": environment, "passenv": passed}
