"""The methods of the control socket, each in a file of its own or beside its kin."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.control.core import Core
from supervisor.control.verbs import (
    apply,
    call,
    fds,
    graph,
    introspection,
    list,
    logs,
    monitor,
    plan,
    reexec,
    reload,
    reopen,
    sessions,
    show,
    shutdown,
    signal,
    sleep,
    start,
    status,
    stop,
    why,
)
from supervisor.varlink.pending_call import PendingCall

Handler = Callable[[PendingCall, Core], None]  # answers the call, now or later, or raises ControlError

METHODS: dict[str, Handler] = {
    "io.spawnd.Apply": apply.run,
    "io.spawnd.Call": call.run,
    "io.spawnd.Check": plan.check,
    "io.spawnd.Denied": sessions.denied,
    "io.spawnd.Fds": fds.run,
    "io.spawnd.Forgive": sessions.forgive,
    "io.spawnd.GetVersion": introspection.get_version,
    "io.spawnd.Graph": graph.run,
    "io.spawnd.Kill": sessions.kill,
    "io.spawnd.List": list.run,
    "io.spawnd.Logs": logs.run,
    "io.spawnd.Monitor": monitor.run,
    "io.spawnd.Plan": plan.run,
    "io.spawnd.Reexec": reexec.run,
    "io.spawnd.Reload": reload.run,
    "io.spawnd.Reopen": reopen.run,
    "io.spawnd.Reset": start.reset,
    "io.spawnd.Restart": start.restart,
    "io.spawnd.Sessions": sessions.run,
    "io.spawnd.Show": show.run,
    "io.spawnd.Shutdown": shutdown.run,
    "io.spawnd.Signal": signal.run,
    "io.spawnd.Sleep": sleep.run,
    "io.spawnd.Start": start.run,
    "io.spawnd.Status": status.run,
    "io.spawnd.Stop": stop.run,
    "io.spawnd.Why": why.run,
    "org.varlink.service.GetInfo": introspection.get_info,
    "org.varlink.service.GetInterfaceDescription": introspection.get_interface_description,
}
