"""Words of other supervisors: a message for each of them names our key."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from supervisor.definitions import synonyms
from supervisor.definitions.lua import CONSTRUCTORS, NAMES
from supervisor.definitions.scalars import LIMIT_UNITS as RESOURCES
from supervisor.definitions.service import KEYS, Accept
from tests.unit.definitions.loading import Files

OWN = "is the file's own, and means nothing"
KNOWN = """
    command autostart autorestart startretries startsecs stopsignal stopasgroup killasgroup directory environment
    numprocs process_name priority exitcodes stopwaitsecs redirect_stderr stdout_logfile stderr_logfile
    ExecStart ExecStartPre ExecStop ExecReload Requires Wants BindsTo PartOf Before WantedBy User Group Restart
    RestartSec EnvironmentFile Environment WorkingDirectory RootDirectory Type PIDFile KillMode KillSignal
    TimeoutStartSec
    TimeoutStopSec WatchdogSec StandardOutput StandardError LimitNOFILE LimitCORE SuccessExitStatus
    SupplementaryGroups CapabilityBoundingSet AmbientCapabilities NoNewPrivileges MemoryMax CPUQuota TasksMax
    OOMScoreAdjust CPUAffinity Nice UMask ListenStream StartLimitBurst Description After Conflicts
    command_args command_user pidfile need use respawn depends-on waits-for working-dir run-as env-file logfile
    cmd args cwd script instances working_dir depends_on healthcheck cap_add ulimits ports
    FileDescriptorStoreMax OpenFile DynamicUser PrivateTmp PrivateNetwork PrivateDevices ProtectSystem ProtectHome
    ReadWritePaths BindReadOnlyPaths SystemCallFilter RestrictAddressFamilies LockPersonality MemoryDenyWriteExecute
    RuntimeDirectory RuntimeDirectoryMode StateDirectory CacheDirectory LogsDirectory OnFailure OnSuccess
    StartLimitIntervalSec StartLimitAction RuntimeMaxSec ExecCondition ConditionPathExists AssertUser Slice Delegate
    Documentation LoadCredential SetCredential IPAddressDeny SyslogIdentifier SyslogFacility LogRateLimitBurst
    OnCalendar OnBootSec Backlog SocketMode FreeBind ListenSequentialPacket ListenFIFO AllowedCPUs CPUShares
    PAMName SetLoginEnvironment GuessMainPID ExitType RestartSteps RestartForceExitStatus FinalKillSignal
    only_from no_access access_times cps per_source max_load banner_fail deny_time server server_args log_on_success
    MaxConnections MaxConnectionsPerSource BindToDevice DeferAcceptSec TriggerLimitBurst PollLimitIntervalSec
    RequiredBy Alias Also JoinsNamespaceOf NetworkNamespacePath UnsetEnvironment KillMode Restart RestartSec Type
""".split()


def named_keys(advice: str) -> set[str]:
    """The keys in it: `'task'`, or with a value in backticks."""
    return {name for pair in re.findall(r"'(\w+)'|`(\w+) = ", advice) for name in pair if name}


@pytest.mark.parametrize("word", KNOWN)
def test_every_word_leads_to_a_key_of_ours(files: Files, word: str) -> None:
    if word in KEYS:
        return
    text = f'web = {{ exec = "/bin/true", ["{word}"] = "x" }}'
    message = next(text for text in files.problems(text) if "unknown key" in text)
    assert message.startswith(f"a.lua:1: web: unknown key {word!r}")
    named = named_keys(message.partition(repr(word))[2])
    others = ("in a loop", "another service", "pid file", "there is none")
    assert named & KEYS.keys() or any(other in message for other in others)


def test_every_word_for_a_rule_leads_to_one_of_ours() -> None:
    rules = {field.name for field in fields(Accept)}
    assert set(synonyms.RULES.values()) <= rules
    assert all(word == word.lower() and "_" not in word for word in synonyms.RULES)


@pytest.mark.parametrize(("word", "rule"), [("instances", "max"), ("Max_Load", "load_max"), ("only_form", "only_from")])
def test_a_rule_of_another_tool_is_named(files: Files, word: str, rule: str) -> None:
    [problem] = files.problems(f'x = {{ exec = "/x", fd = {{ stream("/s") }}, accept = {{ {word} = 1 }} }}')
    assert problem == f"a.lua:1: x: accept.{word}: unknown, did you mean {rule!r}?"


@pytest.mark.parametrize("word", [*(field.name for field in fields(Accept)), *synonyms.RULES, "KeepAlive", "Deny"])
def test_an_entry_of_accept_that_is_a_key_is_told_where_it_belongs(files: Files, word: str) -> None:
    if word in ("v4", "v6"):  # of `per_source`
        return
    message = next(
        text for text in files.problems(f'x = {{ exec = "/bin/true", ["{word}"] = 1 }}') if "unknown key" in text
    )
    assert "'accept'" in message or "`accept = " in message


def test_a_word_with_two_meanings_gets_both(files: Files) -> None:
    (message,) = files.problems('x = { exec = "/bin/true", keepalive = true }')
    hint = "'restart' is \"always\", \"on-failure\" or \"never\"; the table 'accept' has an entry for that: "
    assert message == f"a.lua:1: x: unknown key 'keepalive': {hint}{{ keepalive = … }}"


def test_the_table_names_keys_that_exist() -> None:
    for word, advice in {**synonyms.KEYS, **synonyms.FAMILIES}.items():
        assert word == word.lower(), "as it is looked up"
        assert not {"_", "-"} & set(word), "as it is looked up"
        assert named_keys(advice) <= KEYS.keys(), advice
        assert not re.search(r"'\w+' = ", advice), "it can be copied into a definition"


# keys that no other supervisor has, and keys that others spell as we do
WITHOUT_SYNONYM = {"worker", "options", "function_user", "listen_fds", "expand_env", "control", "handover_signal",
                   "restart_signal", "ready_fd", "idle_cpu"}  # fmt: skip
SAME = {"conflicts": "Conflicts", "memory_high": "MemoryHigh", "memory_swap_max": "MemorySwapMax"}


@pytest.mark.parametrize("key", sorted(KEYS.keys() - WITHOUT_SYNONYM))
def test_every_key_that_others_have_is_advised(files: Files, key: str) -> None:
    if key in SAME:
        (message,) = files.problems(f'web = {{ exec = "/bin/true", {SAME[key]} = "1" }}')
        assert message.endswith(f"did you mean {key!r}?")
    else:
        advices = (*synonyms.KEYS.values(), *synonyms.FAMILIES.values())
        is_advised = any(key in named_keys(advice) for advice in advices)
        assert is_advised, f"add another supervisor's word for {key!r} to synonyms.KEYS, or the key to WITHOUT_SYNONYM"


def test_no_key_of_ours_is_in_the_table() -> None:
    """Its spelling would lead away from it."""
    assert not {key for key in KEYS if key.lower() in synonyms.KEYS}


@pytest.mark.parametrize("key", synonyms.VALUES)
def test_values(files: Files, key: str) -> None:
    prefix = "_SUPERVISOR" if key not in KEYS else 'web = { exec = "/bin/true" }; _DEFAULT'
    for word, ours in synonyms.VALUES[key].items():
        (message,) = files.problems(f"{prefix} = {{ {key} = \"{word}\" }}")
        assert message.endswith(f": {ours}" if " " in ours else f", did you mean {ours!r}?")
        assert named_keys(ours) <= KEYS.keys()


@pytest.mark.parametrize("key", ["restart", "status"])
def test_yes_and_no(files: Files, key: str) -> None:
    assert files.problems(f'web = {{ exec = "/bin/true", {key} = true }}')[0].endswith(
        f", did you mean {synonyms.VALUES[key]['true']!r}?"
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('fd = tcp("127.0.0.1", 1)', "fd: has to be a list, not tcp(…), write fd = { tcp(…) }"),
        ("stdout = log", "stdout: has to be made by a constructor, which is called with its arguments, like log()"),
        ("fd = { tcp }", "fd[1]: has to be made by a constructor, which is called with its arguments, like log()"),
        ('stdout = file("/var/log/x")', "opened with 'r' it cannot be written, write file('/var/log/x', \"a\")"),
        ('check = "/usr/sbin/sshd -t"', "not '/usr/sbin/sshd -t', write check = { '/usr/sbin/sshd', '-t' }"),
        ('arg = "-v --port 80"', "not '-v --port 80', write arg = { '-v', '--port', '80' }"),
        ("arg = \"-c 'a b'\"", "write arg = { \"-c 'a b'\" }"),
        ('fd = { stream("/run/y", { mode = 660 }) }', 'decimal: write it as text, "660"'),
        ("umask = 27.5", 'decimal: write it as text, like "022"'),
        ('stderr = "/var/log/x"', "like file('/var/log/x', \"a\"), not '/var/log/x'"),
        ('stdin = "/etc/motd"', "like file('/etc/motd', \"r\"), not '/etc/motd'"),
        ('stdout = "journal"', 'stdout: has to be made by a constructor, like log() or file("/var/log/web", "a")'),
        ('keep = { "net_bind" }', "'capabilities' says which to keep: { keep = { \"net_bind_service\" } }"),
        ('capabilities = { keep = { "net_bind" } }', "'net_bind', did you mean 'net_bind_service'?"),
    ],
)
def test_values_of_another_kind(files: Files, keys: str, message: str) -> None:
    (found,) = files.problems(f'web = {{ exec = "/bin/true", {keys} }}')
    assert message in found


@pytest.mark.parametrize("name", synonyms.FUNCTIONS)
def test_functions_that_there_are_not(files: Files, name: str) -> None:
    (called,) = files.problems(f'web = {{ exec = "/bin/true", fd = {{ {name}("x") }} }}')
    assert called.startswith(f"a.lua:1: attempt to call global {name!r} (a ")
    assert called.endswith(f" value){synonyms.function(name)}")
    made = re.findall(r"(\w+)\(", synonyms.FUNCTIONS[name])
    assert set(made) <= {*CONSTRUCTORS, "depends"}, "what is named instead is there"


def test_no_function_of_ours_is_in_the_table() -> None:
    assert not NAMES & synonyms.FUNCTIONS.keys()


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ('start_timeout = "1m30s"', '"90s"'),
        ('start_timeout = "5 min"', '"5m"'),
        ('start_timeout = "1h 30m"', '"90m"'),
        ('start_timeout = "2sec"', '"2s"'),
        ('watchdog = "1 week"', '"7d"'),
        ('timer_slack = "500us"', '"0.0005s"'),
        ('memory_max = "512mb"', '"512m"'),
        ('memory_max = "1.5G"', '"1536m"'),
        ('memory_high = "64 KiB"', '"64k"'),
        ('limits = { data = "100 bytes" }', "100"),
    ],
)
def test_units_of_others(files: Files, setting: str, meant: str) -> None:
    (message,) = files.problems(f'web = {{ exec = "/bin/true", {setting} }}')
    assert message.endswith(f", write {meant}")
    written = re.sub(r'"[^"]*"', meant, setting)
    files.load(f'web = {{ exec = "/bin/true", {written} }}')


@pytest.mark.parametrize("value", ["soon", "", "1x", "1m30x", "-5s", "m", "1..5s", "5m!"])
def test_what_is_no_quantity_gets_examples(files: Files, value: str) -> None:
    for key, example in (("start_timeout", '"10s"'), ("memory_max", '"64k"')):
        (message,) = files.problems(f'web = {{ exec = "/bin/true", {key} = "{value}" }}')
        assert example in message


@pytest.mark.parametrize(
    "text",
    [
        '_G["\\233"] = { exec = "/bin/true" }',
        '_G["\\233"] = 5',
        'module("\\233", package.seeall)',
        'x = { exec = "/bin/true", cpu_affinity = "\\233" }',
        'x = { exec = "/bin/true", stop_signal = "\\233" }',
        'x = { exec = "/bin/true", kill_mode = "\\233" }',
        'x = { exec = "/bin/true", capabilities = { keep = { "\\233" } } }',
        'x = { exec = "/bin/true", ["\\233"] = 1 }',
        'error("\\233")',
    ],
)
def test_bytes_that_are_not_utf_8_are_shown_as_bytes(files: Files, text: str) -> None:
    (message,) = files.problems(f"\n{text}")
    assert message.startswith("a.lua:2: ")
    assert "\\xe9" in message
    assert "udce9" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('my-web = { exec = "/bin/true" }', 'a name with - in it is written _G["my-web"] = { … }'),
        ("\n\nweb = {\n  my-key = 3\n}", 'in a table, ["my-key"] = …'),
        ("[program:web]\ncommand=/bin/true", "this is not an INI file"),
        ("# a unit\n\n[Unit]\nDescription=x", "this is not an INI file"),
        ("services:\n  web:\n    image: x", "this is not a YAML file"),
        ("---\nweb: x\n", "this is not a YAML file"),
        ('x = os.getenv("HOME")', "definitions see no environment variable"),
        ('os.execute("id")', "definitions change nothing on this host"),
        ('web { exec = "/bin/true" }', "; a service is written web = { … }"),
        ('web.api = { exec = "/bin/true" }', '; a name with . in it is written _G["web.api"]'),
        ('module("web", package.seeall)\nexec = "/x",\nuser = "www"', "; is there a comma in front of this?"),
        ('module("web", package.seeall)\nexec = "/x",  -- why\n\nuser = "www"', "; is there a comma in front of this?"),
        ('module("web", package.seeall)\nexec = "/x", user = "www"', "; is there a comma in front of this?"),
        ('module("web", package.seeall)\nexec = "/x",\n', "; is there a comma in front of this?"),
        ("web = { exec = /bin/true }", "; a path is text, in quotes"),
        ('web = {\n  exec: "/bin/true",\n}', "; exec has a = behind it, no colon"),
        ('web = {\n  exec = "/bin/true"\n  user = "www"\n}', "; is a comma missing in front of user?"),
    ],
)
def test_files_of_another_kind(files: Files, text: str, message: str) -> None:
    assert message in files.problems(text)[0]


def test_a_service_after_a_module(files: Files) -> None:
    text = 'module("web", package.seeall)\nexec = "/bin/true"\nroot = { exec = "/bin/true" }'
    said = "web: 'root' is a table after module(), so it belongs to the module; put services before it"
    assert files.problems(text) == [f"a.lua:3: {said}"]


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        ('_DEFAULTS = { user = "www" }', f"1: '_DEFAULTS' {OWN}, did you mean '_DEFAULT'?"),
        ("\n_SUPERVISER = {}", f"2: '_SUPERVISER' {OWN}, did you mean '_SUPERVISOR'?"),
        ('\nreturn { web = { exec = "/bin/true" } }', "2: the returned table has no effect: a service is a global"),
        ('_DEFAULTS = { user = "www" }\nfor key in pairs(_DEFAULTS) do end', None),
        ("_PORTS = {}", None),
    ],
)
def test_what_is_no_error_and_means_nothing(files: Files, text: str, notice: str | None) -> None:
    notices = [found.replace(f"{files.folder}/", "") for found in files.load(text).notices]
    assert notices == ([] if notice is None else [f"a.lua:{notice}"])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('depends = "db.service"', "unknown service 'db.service', did you mean 'db'?"),
        ('depends = "dbb"', "unknown service 'dbb', did you mean 'db'?"),
        ('after = "network.target"', "unknown service 'network.target': units of systemd are not services of spawnd; "),
        ('limits = { memory = "5m" }', "unknown resource: 'memory_max' limits the memory of a service"),
        ("limits = { open_files = 5 }", "unknown resource: nofile is"),
        ('RestartForceExitStatus = "1"', "there is none; `restart = \"always\"` restarts after every exit status"),
        ('Type = "forking"', "a program that goes into the background has `forking = true`"),
        ("enviroment = { }", "unknown key 'enviroment': 'env' is a table"),
        ('timeout = "5s"', "unknown key 'timeout': 'start_timeout' and 'stop_timeout' are"),
    ],
)
def test_names_of_others(files: Files, setting: str, said: str) -> None:
    (message,) = files.problems(f'db = {{ exec = "/bin/true" }}\nweb = {{ exec = "/bin/true", {setting} }}')
    assert said in message


def test_limits_that_are_named_instead_exist() -> None:
    for advice in synonyms.RESOURCES.values():
        assert set(re.findall(r"'(\w+)'", advice)) <= KEYS.keys()
        assert set(re.findall(r"\w+", advice)) & (KEYS.keys() | RESOURCES.keys())
    assert not synonyms.RESOURCES.keys() & RESOURCES.keys()


@pytest.mark.parametrize("text", ["x = = 3", "local a = b-c = 3", "x = {", "goto:x"])
def test_other_errors_get_no_advice_of_that_kind(files: Files, text: str) -> None:
    assert "this is no " not in files.problems(text)[0]
