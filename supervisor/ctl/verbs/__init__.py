"""The verbs of spawnctl, one module for each, with two functions.

`arguments(parser)` adds the arguments of the verb; `run(client, args)` executes it and returns the exit code.
This module lists the verbs with their help, so that only the requested verb is imported.
"""

from __future__ import annotations

VERBS = {
    "list": "list services in a table",
    "status": "show services in detail; without a name, the same as list",
    "why": "explain why services are not running, or since when they run",
    "start": "start services and their dependencies",
    "stop": "stop services",
    "restart": "stop and start services; a stopped service is started",
    "sleep": "end the processes of services, and keep their sockets open: the next client starts them",
    "reload": "ask services to reload; nothing is restarted",
    "reopen": "begin new log files after a rotation, without a restart",
    "signal": "send a signal to the main process of services",
    "kill": "end one session of a service that has a process for each connection",
    "reset": "forget the failures of services",
    "show": "show the current definition of a service",
    "fds": "show the descriptor table of a service",
    "sessions": "show the sessions of services that have a process for each connection",
    "logs": "show the last lines of a service's output, or follow it",
    "monitor": "show the states of services, and each change as it happens",
    "call": "call a method of a service that has a control socket",
    "accounting": "show what deleted cgroups used, by scope, path, host or attribute",
    "check": "check the definition files; nothing is changed",
    "plan": "show what applying the definition files would change",
    "apply": "apply the definition files, exactly as plan shows",
    "import": "convert configurations of other supervisors to definition files; no supervisor is needed",
    "graph": "show the dependencies of services, or the times of the start",
    "reexec": "re-execute spawnd as the installed version; no service is stopped",
    "shutdown": "stop all services and end spawnd",
    "version": "show the versions of spawnctl and of the running spawnd",
    "help": "show the arguments of a verb, or list the verbs",
}
