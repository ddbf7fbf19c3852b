"""Words of other supervisors for keys and values of definitions: supervisord, systemd, xinetd, docker, OpenRC and more.

All such hints in messages are here: words for keys, values, functions, and units of sizes and durations.
Words for keys are written without `_` and `-` and in lower case. In the advice, our keys are in single
quotes, and keys with a value in backticks: `task = true`. A test looks for each of them in the schema.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import fields

from supervisor.definitions.notation import quantity
from supervisor.definitions.problems import did_you_mean, nearest
from supervisor.definitions.service import Accept

MISSPELT = 0.9  # minimum similarity of a word to one of these; that for our own keys is lower

_PROGRAM = "the program goes into 'exec', its arguments into 'arg', a list"
_STARTED = "'status' says whether it is started with spawnd: \"start\" or \"stop\""
_SEVERAL = 'define each of them, in a loop: for i = 1, 3 do _G["web" .. i] = { … } end'
_NEEDS = "'depends' lists the services that have to be up before it"
_ORDER = "'after' lists the services that start first where they start at all"
_OUTPUT = '\'stdout\' and \'stderr\' take log(), or a file: file("/var/log/web", "a")'
_HEALTHY = "'healthy_after' is how long it has to run for a start to count as good"
_RETRIES = "'start_limit' is how many failures in a row end in failed"
_DELAY = '\'backoff\' has the waits after failures: { first = "1s", max = "1m" }'
_STOP = "'stop_signal' is the signal that stops it, 'stop_timeout' how long until KILL"
_KILL = "'kill_mode' says what becomes of its other processes"
_BEFORE = "a check before each start goes into 'check', other steps into the functions of a module"
_VARIABLES = '\'env\' is a table: { LANG = "C" }'
_SOCKETS = '\'fd\' lists the sockets: { tcp("*", 80) }'
_LIMITS = "'limits' is a table: { nofile = 1024 }"
_CAPABILITIES = '\'capabilities\' says which to keep: { keep = { "net_bind_service" } }'
_PID = "a service stays in the foreground; for one that cannot there are `forking = true` and 'pid_file'"
_FAILURE = "'success_status' lists exit statuses that are a success as 0 is"
_POLICY = "'scheduling' is \"batch\", \"idle\", or like \"fifo:10\""
_CONSTRUCTOR = '\'fd\' has the options of a socket: { tcp("*", 80, { backlog = 1024, reuseport = true }) }'
_SANDBOX = "there is none; 'user', 'capabilities', 'no_new_privs', 'netns' and 'chroot' say what a service can reach"
_FOLDERS = "there is none; tmpfiles.d(5) makes directories at boot, the function start of a module with fsys.mkdir"
_ON_FAILURE = "there is none; `spawnctl monitor --json` tells a program of each failure"
_TIMER = "there is none; cron starts a service with `task = true` and `status = \"stop\"` by `spawnctl start`"
_HANDED_OVER = '`fd = { file("/etc/web.key", "r") }` gives a secret to a service, and root opens it'
_CGROUP = "there is none; each service has a cgroup of its own below that of _SUPERVISOR = { cgroup = … }"
_FIREWALL = "there is none; 'netns' gives a service a network of its own, and a firewall is the host's"
_STORE = "'fdstore_max' is how many descriptors it may store"
_CLIENTS = "'accept' has the rules for clients: { max = 50, per_source = 3, only_from = { \"192.0.2.0/24\" } }"
_OWN_OPTION = "there is none; a program sets such an option of its socket itself"
_HOST_OPTION = "there is none; sysctl(8), routes and a firewall set it for the host, or a program itself"
_NO_TEXT = "there is none; 'description' is text for people"
_NOTHING = "spawnd starts all services but those with `status = \"stop\"`, in the order of 'depends' and 'after'"

KEYS = {
    **dict.fromkeys(("command", "cmd", "execstart", "program", "script", "path", "binary", "run"), _PROGRAM),
    **dict.fromkeys(("args", "argv", "arguments", "commandargs", "params"), "its arguments go into 'arg', a list"),
    **dict.fromkeys(
        ("execstartpre", "execstartpost", "execstoppre", "execstoppost", "startpre", "startpost", "precommand"), _BEFORE
    ),
    **dict.fromkeys(("execreload", "reloadcommand"), "'reload_signal' is the signal that makes it reload"),
    **dict.fromkeys(("execstop", "stopcommand", "gracefultimeout"), _STOP),
    **dict.fromkeys(("autostart", "enabled", "disable", "disabled", "startonboot", "manual"), _STARTED),
    **dict.fromkeys(
        ("autorestart", "respawn", "keepalive"), "'restart' is \"always\", \"on-failure\" or \"never\""
    ),
    **dict.fromkeys(("startsecs", "minuptime"), _HEALTHY),
    **dict.fromkeys(("startretries", "startlimitburst", "maxrestarts", "maxretries", "respawnmax"), _RETRIES),
    **dict.fromkeys(("restartsec", "restartdelay", "respawndelay", "startlimitinterval"), _DELAY),
    **dict.fromkeys(("stopwaitsecs", "killtimeout", "stopgraceperiod", "retry"), _STOP),
    **dict.fromkeys(("killsignal", "killmode", "sendsighup"), f"{_STOP}; {_KILL}"),
    **dict.fromkeys(("stopasgroup", "killasgroup"), _KILL),
    "timeoutstopsec": "'stop_timeout' is how long a stop may take",
    "timeoutstartsec": "'start_timeout' is how long it may take to become ready",
    "timeoutsec": "'start_timeout' and 'stop_timeout' are its time limits",
    "watchdogsec": "'watchdog' is the time within which it has to send WATCHDOG=1",
    "type": (
        "'ready' says when it is up: \"exec\", \"notify\" or \"fd\"; a program that goes into the background has "
        "`forking = true`, what runs once has `task = true`"
    ),
    **dict.fromkeys(
        ("stopwhenunneeded", "exitidletime", "exitidletimesec", "idletimeout"),
        "'idle_stop' puts a service on demand to sleep that nobody uses",
    ),
    **dict.fromkeys(
        ("onlyfrom", "noaccess", "accesstimes", "cps", "persource", "maxload", "banner", "bannersuccess", "bannerfail",
         "denytime", "logonsuccess", "logonfailure", "flags", "libwrap", "maxconnections", "maxconnectionspersource",
         "triggerlimitintervalsec", "triggerlimitburst", "polllimitintervalsec", "polllimitburst"), _CLIENTS,
    ),
    "server": _PROGRAM,
    "nameinargs": "'argv0' is the name that the program sees",
    "serverargs": "its arguments go into 'arg', a list",
    "id": "there is none; the name of the table is that of the service",
    **dict.fromkeys(("rpcversion", "rpcnumber"), "there is none; a program registers itself with rpcbind"),
    "redirect": "there is none; haproxy, nginx or socat as 'exec' passes connections on",
    "mdns": "there is none; avahi-daemon announces services",
    **dict.fromkeys(("include", "includedir"), "there is none; every *.lua file of the directory is read"),
    **dict.fromkeys(("nowait", "wait"), "`accept = true` starts a process for each connection"),
    "notifyaccess": "`ready = \"notify\"` is all that it takes",
    **dict.fromkeys(("oneshot", "remainafterexit"), "what runs once has `task = true`"),
    **dict.fromkeys(("exitcodes", "successexitstatus"), _FAILURE),
    "restartpreventexitstatus": "'no_restart_status' lists exit statuses after which it is not started again",
    **dict.fromkeys(("cpuschedulingpolicy", "cpuschedulingpriority", "schedulingpolicy"), _POLICY),
    "ioschedulingclass": "'io_class' is \"realtime\", \"best-effort\" or \"idle\"",
    "ioschedulingpriority": "'io_priority' is 0 to 7",
    "timerslacknsec": "'timer_slack' is a duration, like \"50ms\"",
    **dict.fromkeys(("directory", "workingdirectory", "workingdir", "workdir", "chdir"), "its directory is 'cwd'"),
    "rootdirectory": "its new root is 'chroot'",
    **dict.fromkeys(("environment", "setenv", "environ", "envvars", "variables"), _VARIABLES),
    **dict.fromkeys(("environmentfile", "envfiles", "dotenv"), "files of variables go into 'env_file'"),
    **dict.fromkeys(("passenvironment", "passenv", "copyenv"), f"a service inherits no variable; {_VARIABLES}"),
    **dict.fromkeys(("numprocs", "numprocesses", "replicas", "processname", "scale"), _SEVERAL),
    "instances": f"{_SEVERAL}; `accept = {{ max = 20 }}` limits sessions",
    **dict.fromkeys(("requires", "bindsto", "requisite", "partof", "need", "dependson", "dependencies"), _NEEDS),
    **dict.fromkeys(("wants", "use", "want", "waitsfor", "upholds"), f"{_NEEDS}; {_ORDER}"),
    "before": "the other service has 'after' for that",
    "priority": f"{_ORDER}; 'nice' is the priority of its process",
    **dict.fromkeys(("wantedby", "requiredby", "alias", "also", "runlevels", "defaultdependencies"), _NOTHING),
    **dict.fromkeys(("runas", "runasuser", "commanduser", "uid", "username"), "its user is 'user'"),
    **dict.fromkeys(("gid", "runasgroup"), "its group is 'group'"),
    **dict.fromkeys(("supplementarygroups", "extragroups"), "further groups go into 'groups'"),
    **dict.fromkeys(
        ("stdoutlogfile", "stderrlogfile", "standardoutput", "standarderror", "logfile", "log", "output", "logging",
         "redirectstderr", "logtype", "outfile", "errorfile", "outputlog", "errorlog", "syslogidentifier"), _OUTPUT,
    ),
    "standardinput": "'stdin' takes a file or a socket: file(\"/etc/motd\")",
    **dict.fromkeys(
        ("listenstream", "listendatagram", "sockets", "socket", "listen", "ports", "port", "bind", "interface", "fds",
         "sockettype", "protocol", "socketprotocol"), _SOCKETS,
    ),
    **dict.fromkeys(("rlimits", "ulimits", "ulimit", "limit"), _LIMITS),
    **dict.fromkeys(
        ("capabilityboundingset", "ambientcapabilities", "keep", "caps", "capadd", "capability"), _CAPABILITIES
    ),
    "nonewprivileges": "`no_new_privs = true` does that",
    **dict.fromkeys(("memlimit", "memorylimit", "maxmemory"), "'memory_max' is the most memory that it may have"),
    "cpuquota": "'cpu_max' is its share of one CPU: \"150%\"",
    "tasksmax": "'pids_max' is the most processes that it may have",
    **dict.fromkeys(("oomscoreadjust", "oomadjust"), "'oom_score_adj' is that"),
    **dict.fromkeys(("pidfile", "pid", "daemon", "daemonize", "background"), _PID),
    **dict.fromkeys(("healthcheck", "statuscommand"), "'watchdog' finds a service that hangs"),
    **dict.fromkeys(
        ("networknamespacepath", "privatenetwork", "joinsnamespaceof"), "'netns' is the name of its network namespace"
    ),
    **dict.fromkeys(("entrypoint", "image"), _PROGRAM),
    "execcondition": _BEFORE,
    "dynamicuser": "there is none; make a user with useradd or sysusers.d(5), and name it in 'user'",
    **dict.fromkeys(("onfailure", "onsuccess", "failureaction", "successaction", "startlimitaction"), _ON_FAILURE),
    **dict.fromkeys(("startlimitintervalsec", "restartsteps", "restartmaxdelaysec"), _DELAY),
    "restartforceexitstatus": "there is none; `restart = \"always\"` restarts after every exit status",
    "runtimemaxsec": "there is none; for a program that runs once, timeout(1) as 'exec' sets such a limit",
    "timeoutabortsec": _STOP,
    "finalkillsignal": _STOP,
    "sendsigkill": f"{_STOP}; {_KILL}",
    **dict.fromkeys(("guessmainpid", "exittype"), _PID),
    **dict.fromkeys(("filedescriptorstoremax", "filedescriptorstorepreserve"), _STORE),
    "openfile": '\'fd\' lists files, too: { file("/etc/web.conf", "r") }',
    **dict.fromkeys(("setloginenvironment", "pamname"), "`login_env = true` sets HOME, USER and the like"),
    "unsetenvironment": f"a service inherits no variable; {_VARIABLES}",
    **dict.fromkeys(("cpushares", "startupcpuweight"), "'cpu_weight' is its share where others want the CPU, too"),
    **dict.fromkeys(("allowedcpus", "numamask"), "'cpu_affinity' lists the CPUs that it may run on"),
    **dict.fromkeys(("blockioweight", "startupioweight"), "'io_weight' is its share where others want the disk, too"),
    **dict.fromkeys(("slice", "delegate", "delegatesubgroup", "disablecontrollers"), _CGROUP),
    **dict.fromkeys(("documentation", "sourcepath"), _NO_TEXT),
    **dict.fromkeys(
        ("backlog", "socketmode", "socketuser", "socketgroup", "bindipv6only", "reuseport", "freebind", "transparent",
         "nodelay", "passcredentials", "bindtodevice", "deferacceptsec", "sendbuffer", "receivebuffer", "mark",
         "filedescriptorname"), _CONSTRUCTOR,
    ),
    "directorymode": _FOLDERS,
    "service": f"{_PROGRAM}; {_SOCKETS}",
    "writable": '\'fd\' lists files, too: { file("/dev/watchdog", "r+") }',
    "flushpending": "'flush' drops a datagram that it fails with again and again",
    "removeonstop": "there is none; a stop always removes the sockets of a service",
    "symlinks": "there is none; tmpfiles.d(5) makes links",
    "passfiledescriptorstoexec": "'check' always has the descriptors of the service",
    **dict.fromkeys(
        ("broadcast", "passpidfd", "passsecurity", "passpacketinfo", "acceptfiledescriptors", "timestamping",
         "pipesize", "messagequeuemaxmessages", "messagequeuemessagesize"), _OWN_OPTION,
    ),
    **dict.fromkeys(
        ("keepalivetimesec", "keepaliveintervalsec", "keepaliveprobes", "iptos", "ipttl", "tcpcongestion"), _HOST_OPTION
    ),
    **dict.fromkeys(("onactivesec", "onbootsec", "onstartupsec", "onunitactivesec", "oncalendar", "schedule"), _TIMER),
    **dict.fromkeys(("proc", "mountflags", "secretfiles", "privileged", "volumes"), _SANDBOX),
    **dict.fromkeys(("noexecpaths", "execpaths", "rootimage", "temporaryfilesystem", "lockpersonality"), _SANDBOX),
    **dict.fromkeys(("memorydenywriteexecute", "devicepolicy", "deviceallow"), _SANDBOX),
    "timeout": "'start_timeout' and 'stop_timeout' are its time limits",
    "umaskmode": "'umask' has the bits that new files do not get",
}  # fmt: skip

# common prefixes of related names, for names that are not in the table
FAMILIES = {
    **dict.fromkeys(
        ("private", "protect", "restrict", "systemcall", "readwritepath", "readonlypath", "inaccessible", "bindpath",
         "bindreadonly", "apparmor"), _SANDBOX,
    ),
    **dict.fromkeys(
        ("runtimedirectory", "statedirectory", "cachedirectory", "logsdirectory", "configurationdirectory"), _FOLDERS
    ),
    **dict.fromkeys(("condition", "assert"), _BEFORE),
    **dict.fromkeys(("loadcredential", "setcredential", "importcredential"), _HANDED_OVER),
    **dict.fromkeys(("ipaddress", "socketbind", "ipingress", "ipegress"), _FIREWALL),
    **dict.fromkeys(("syslog", "logratelimit", "loglevel", "logextra", "stdoutlog", "stderrlog"), _OUTPUT),
    "listen": _SOCKETS,
    "rlimit": _LIMITS,
    "smacklabel": _SANDBOX,
    "selinuxcontext": _SANDBOX,
    "xattr": "there is none; it describes a socket to tools of systemd",
    "defertrigger": "clients wait while services in 'conflicts' are stopped",
}  # fmt: skip

# Values of keys that take one of a few words: the word that is meant, or advice.
VALUES = {
    "kill_mode": {
        **dict.fromkeys(("control-group", "control_group", "cgroup", "killasgroup"), "group"),
        **dict.fromkeys(("none", "main", "main-process"), "process"),
    },
    "ready": {
        **dict.fromkeys(("simple", "idle", "fork"), "exec"),
        **dict.fromkeys(("notify-reload", "notify_reload", "sd_notify", "sd-notify", "systemd"), "notify"),
        **dict.fromkeys(("pipe", "s6", "pipefd", "ready_fd"), "fd"),
        "forking": "a program that goes into the background has `forking = true`",
        "oneshot": "what runs once has `task = true`",
        "dbus": "spawnd does not speak D-Bus: \"notify\" is for a program that tells when it is ready",
    },
    "io_class": {
        **dict.fromkeys(("rt", "real-time", "1"), "realtime"),
        **dict.fromkeys(("be", "besteffort", "best_effort", "none", "2"), "best-effort"),
        "3": "idle",
    },
    "log_level": {
        **dict.fromkeys(("error", "crit", "critical", "alert", "emerg"), "err"),
        "warn": "warning",
        **dict.fromkeys(("trace", "verbose", "all"), "debug"),
    },
    "restart": {
        **dict.fromkeys(("no", "false", "none", "off", "0"), "never"),
        **dict.fromkeys(("yes", "true", "on", "unless-stopped", "1"), "always"),
        **dict.fromkeys(("unexpected", "on-abnormal", "on-abort", "on-failed", "failure"), "on-failure"),
    },
    "status": {
        **dict.fromkeys(("running", "started", "up", "enabled", "on", "yes", "true", "auto"), "start"),
        **dict.fromkeys(("stopped", "down", "disabled", "off", "no", "false", "manual"), "stop"),
    },
}

# Words for rules of `accept`, written like those for keys.
RULES = {
    **dict.fromkeys(("instances", "maxconnections"), "max"),
    "maxconnectionspersource": "per_source",
    **dict.fromkeys(("cps", "triggerlimitburst", "polllimitburst"), "rate"),
    "accesstimes": "hours",
    "maxload": "load_max",
    "bannersuccess": "banner",
    "bannerfail": "banner_refused",
    **dict.fromkeys(("allow", "ipaddressallow"), "only_from"),
    **dict.fromkeys(("deny", "ipaddressdeny"), "no_access"),
    **dict.fromkeys(("device", "bindtodevice"), "interface"),
    "deferacceptsec": "defer_accept",
    "sensor": "trap",
}
_BITS = {"v4", "v6"}  # entries of `per_source`
# Entries of `accept` by their own names and by those of others.
_ENTRIES = {field.name.replace("_", ""): field.name for field in fields(Accept) if field.name not in _BITS} | RULES

_MAKE_SOCKETS = "tcp(host, port) and stream(path) make listening sockets, udp(host, port) and dgram(path) others"
_UNIX = "stream(path), dgram(path) and seqpacket(path) make Unix sockets"
_TABLE = 'a service is a table: web = { exec = "/usr/sbin/web" }'
_LOG = "log() keeps what a service writes, in the journal where there is one"
_ALONE = "each file stands for itself, and reads no other"
_NO_VARIABLES = (
    "definitions see no environment variable, so that they mean the same at every start: a value goes into "
    "env, or into a file that env_file names"
)
_HARMLESS = "definitions change nothing on this host"

# Functions that there are not, or not as this.
FUNCTIONS = {
    **dict.fromkeys(("listen", "listener", "socket", "bind", "inet", "server", "port"), _MAKE_SOCKETS),
    **dict.fromkeys(("tcp4", "tcp6", "tcp_listen", "listen_tcp"), "tcp(host, port) makes a listening TCP socket"),
    **dict.fromkeys(("udp4", "udp6", "listen_udp", "datagram"), "udp(host, port) makes a bound UDP socket"),
    **dict.fromkeys(("unix", "listen_unix", "unix_stream", "unix_socket", "unix_listen", "local_socket"), _UNIX),
    **dict.fromkeys(("connect", "unix_connect"), "stream(path, 'connect') makes a connected Unix socket"),
    **dict.fromkeys(("open", "path", "append", "fifo", "pipe", "logfile"), "file(path, mode) opens what is there"),
    **dict.fromkeys(("null", "devnull", "discard"), "what is not given is /dev/null"),
    **dict.fromkeys(("journal", "syslog", "logger"), _LOG),
    **dict.fromkeys(("service", "program", "unit", "define", "task", "job", "daemon", "process"), _TABLE),
    **dict.fromkeys(("include", "import"), _ALONE),
    **{
        name: f"definitions have no {name!r}: {_ALONE}"
        for name in ("require", "dofile", "loadfile", "load", "loadstring")
    },
    **dict.fromkeys(("after", "requires", "needs", "conflicts"), "a table has a key for that, depends(_M, …) a module"),
    **dict.fromkeys(("getenv", "setenv", "env", "environment"), _NO_VARIABLES),
    **dict.fromkeys(("execute", "exit", "remove", "rename", "tmpname", "system", "popen", "exec"), _HARMLESS),
    **{
        name: f"definitions have no {name!r}"
        for name in (
            "io", "debug", "ffi", "jit", "python", "getfenv", "setfenv", "newproxy", "collectgarbage", "gcinfo",
        )
    },
}  # fmt: skip

_MEMORY = "'memory_max' limits the memory of a service, data and as that of each process"
RESOURCES = {
    **dict.fromkeys(("memory", "mem", "ram", "vmem", "rssmax"), _MEMORY),
    **dict.fromkeys(("files", "openfiles", "fds", "descriptors", "filedescriptors"), "nofile is the number of them"),
    **dict.fromkeys(("processes", "procs", "tasks", "threads"), "'pids_max' limits those of a service, nproc a user's"),
    **dict.fromkeys(("corefile", "coredump", "coresize"), "core is the size of a core dump"),
    **dict.fromkeys(("cputime", "time"), "cpu is the time of the processor"),
}  # fmt: skip

# kinds of units: what a name that is one of systemd ends with
UNITS = frozenset("service socket target mount timer path slice scope device swap".split())
_UNITS_OF_SYSTEMD = "units of systemd are not services of spawnd; spawnd.service starts after those in its After="

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([a-zµ]*)[\s,]*", re.I)
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([kmgt]?)i?(?:b|bytes?)?", re.I)
_UNITS = {
    **dict.fromkeys(("us", "µs", "usec", "microseconds"), 1e-6),
    **dict.fromkeys(("ms", "msec", "millis", "milliseconds"), 1e-3),
    **dict.fromkeys(("", "s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400.0),
}  # fmt: skip
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

_SECTION = re.compile(r"\s*(?:[#;][^\n]*\n\s*)*\[\w[\w:@. -]*\][ \t]*(?:[#;][^\n]*)?(?:\n|\Z)")
_MAPPING = re.compile(r"\s*(?:#[^\n]*\n\s*)*(?:---[ \t]*\n)?[\w-]+:(?:[ \t][^\n={]*)?(?:\n|\Z)")
_HYPHEN = re.compile(r"[ \t]*([A-Za-z_]\w*(?:-\w+)+)[ \t]*=[ \t]*[^=]")
_COMMA = re.compile(r",[ \t]*(?:--[^\n]*)?\s*\Z")
_TWICE = re.compile(r"=\s*=")
_COMMA_WITHIN = re.compile(r",\s*[A-Za-z_]\w*\s*=[^=]")
_LIMIT = "Limit"
# Messages of Lua for common mistakes, patterns of the line, and the right way to write it; \\1 is the name in either.
_MISTAKES = tuple(
    (re.compile(said), re.compile(found), advice)
    for said, found, advice in (
        (r"attempt to call global", r"^\s*([A-Za-z_]\w*)\s*\{", r"a service is written \1 = { … }"),
        (r"attempt to index global", r"^\s*([A-Za-z_]\w*\.[\w.]+)\s*=", r'a name with . in it is written _G["\1"]'),
        (r"near '/'", r"(=\s*)/", r"a path is text, in quotes"),
        (r"expected near", r"\b([A-Za-z_]\w*):\s*[\"'{\d]", r"\1 has a = behind it, no colon"),
        (r"'}' expected.* near '(\w+)'", "", r"is a comma missing in front of \1?"),
    )
)


def key(name: object) -> str:
    """Return the hint for a key of another tool, with its punctuation; '' if the key is unknown."""
    if not isinstance(name, str):
        return ""
    if name.startswith(_LIMIT) and name[len(_LIMIT) :].isupper():
        return f": {_LIMITS}"
    plain = _plain(name)
    advice = KEYS.get(plain) or next((text for begin, text in FAMILIES.items() if plain.startswith(begin)), "")
    if "'accept'" not in advice and (entry := _ENTRIES.get(plain)):
        advice = "; ".join(filter(None, (advice, f"the table 'accept' has an entry for that: {{ {entry} = … }}")))
    return f": {advice}" if advice else ""


def rule(name: str) -> str:
    """Return the hint for a rule of `accept` of another tool, with its punctuation; '' if it is unknown."""
    found = RULES.get(_plain(name))
    return f", did you mean {found!r}?" if found else ""


def _plain(name: str) -> str:
    """Return a name as the tables have it."""
    return name.replace("_", "").replace("-", "").lower()


def misspelt_key(name: str) -> str:
    """Return the hint for a misspelt key of another tool, with its punctuation; '' if none is similar."""
    near = nearest(_plain(name), KEYS, alike=MISSPELT)
    return f": {KEYS[near[0]]}" if near else ""


def word(key: str, value: object, words: tuple[str, ...]) -> str:
    """Return the hint for a value of a key with a choice of words, with its punctuation; '' if there is none."""
    other = VALUES.get(key, {}).get(str(value).lower(), "")
    return f": {other}" if other and other not in words else did_you_mean(other or value, words)


def function(name: str) -> str:
    """Return the hint for a function that definitions do not have, with its punctuation; '' if it is unknown."""
    advice = FUNCTIONS.get(name)
    return f"; {advice}" if advice else ""


def duration(text: str) -> str:
    """Return the duration in another tool's notation, of several numbers or with its own units; '' for other values."""
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip() or any(unit.lower() not in _UNITS for _, unit in parts):
        return ""
    return quantity.duration(sum(float(number) * _UNITS[unit.lower()] for number, unit in parts))


def size(text: str) -> str:
    """Return the size in another tool's notation, with its own units; '' for other values."""
    match = _SIZE.fullmatch(text.strip())
    return quantity.size(round(float(match[1]) * _BYTES[match[2].lower()])) if match else ""


def resource(name: object) -> str:
    """Return the hint for a resource limit of another tool, with its punctuation; '' if it is unknown."""
    advice = RESOURCES.get(name.replace("_", "").lower()) if isinstance(name, str) else None
    return f": {advice}" if advice else ""


def service(name: str, known: Container[str]) -> str:
    """Return the hint for the name of a systemd unit, with its punctuation; '' for other names."""
    stem, _, kind = name.rpartition(".")
    if kind not in UNITS:
        return ""
    return f", did you mean {stem!r}?" if stem in known else f": {_UNITS_OF_SYSTEMD}"


def syntax(text: str, line: int, message: str) -> str:
    """Return the hint for a syntax error of Lua on this line; '' if there is none."""
    if _SECTION.match(text):
        return '; this is not an INI file: a service is a table, web = { exec = "/usr/sbin/web" }'
    lines = text.split("\n")
    written = lines[line - 1] if 0 < line <= len(lines) else ""
    if hyphen := _HYPHEN.match(written):
        name = hyphen[1]
        return f"; a name with - in it is written _G[\"{name}\"] = {{ … }} and, in a table, [\"{name}\"] = …"
    if _follows_comma(text, lines[: line - 1], written, message):
        return "; is there a comma in front of this? Keys of a module and services have none between them"
    for said, found, advice in _MISTAKES:
        if (of_lua := said.search(message)) and (of_line := found.search(written)):
            return f"; {(of_lua if of_lua.re.groups else of_line).expand(advice)}"
    if _MAPPING.match(text):
        return '; this is not a YAML file: a service is a table, web = { exec = "/usr/sbin/web" }'
    return ""


def _follows_comma(text: str, before: list[str], written: str, message: str) -> bool:
    """Whether a comma precedes the place where Lua expects none: between keys of a module, or between services."""
    if "unexpected symbol near '<eof>'" in message:
        return bool(_COMMA.search(text))
    if "unexpected symbol near '='" not in message or _TWICE.search(written):
        return False
    return bool(_COMMA.search("\n".join(before)) or _COMMA_WITHIN.search(written))
