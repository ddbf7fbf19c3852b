"""The verbs of spawnctl, each in a file of its own with two functions.

`arguments(parser)` adds what the verb takes, `run(client, args)` does it and returns the
exit code.  They are listed here with their help, so that none is imported but the one used.
"""

from __future__ import annotations

VERBS = {
    "list": "show services in a table",
    "status": "tell all about services; without a name, list them",
    "why": "tell why services are not running, or since when they are",
    "start": "start services, and what they depend on",
    "stop": "stop services",
    "restart": "stop services and start them again; start what is stopped",
    "reload": "ask services to reload; nothing is restarted",
    "reopen": "have the files that services write to at their paths again, after a rotation",
    "signal": "send a signal to the main process of services",
    "reset": "forget the failures of services",
    "show": "show the definition of a service that is in force",
    "fds": "show the descriptor table of a service",
    "logs": "show the last lines of a service's output, and those that follow",
    "monitor": "show the states of services and every change of them",
    "call": "call a method of a service that has a control socket",
    "accounting": "show what released cgroups used, by scope, path, host or extended attribute",
    "check": "check the definition files; nothing is changed",
    "plan": "show what a change to the definition files as they are now would do",
    "apply": "change to the definition files as they are now, as plan shows it",
    "graph": "show what needs what",
    "reexec": "re-execute the supervisor as the installed version; nothing is stopped",
    "shutdown": "stop everything and end the supervisor",
    "version": "show the versions of spawnctl and of the supervisor",
    "help": "tell what a verb takes, or list the verbs",
}
