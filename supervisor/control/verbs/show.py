"""Show: the definition of a service that is in force."""

from __future__ import annotations

from supervisor.control.core import Core
from supervisor.control.orders import find
from supervisor.definitions.service import Service
from supervisor.varlink.messages import Parameters
from supervisor.varlink.pending_call import PendingCall


def run(pending: PendingCall, core: Core) -> None:
    parameters = Parameters(pending.call.parameters)
    name = parameters.string("name")
    parameters.end()
    unit = find(name, core.manager.units)
    current = _settings(unit.service)
    changed = None
    if unit.next_service is not None:
        values = {setting["key"]: setting["value"] for setting in current}
        changed = [setting for setting in _settings(unit.next_service) if setting["value"] != values[setting["key"]]]
    pending.reply(
        {
            "name": name,
            "file": unit.service.file,
            "line": unit.service.line,
            "internal": unit.internal,
            "settings": current,
            "functions": _functions(unit.service),
            "pending": changed,
        }
    )


def _functions(service: Service) -> list[dict[str, object]]:
    return [
        {"key": name, "value": f"function {name}() … end", "file": service.file, "line": service.lines.get(f"{name}()")}
        for name in service.functions
    ]


def _settings(service: Service) -> list[dict[str, object]]:
    from supervisor.definitions.notation.keys import SHOW  # nothing else in spawnd needs it

    settings: list[dict[str, object]] = []
    for key, show in SHOW.items():
        line = service.lines.get(key)
        place = {"file": None, "line": None} if line is None else {"file": service.file, "line": line}
        settings.append({"key": key, "value": show(service), **place})
    return settings
