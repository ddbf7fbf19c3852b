"""Module-style definitions: what comes of them, and what is wrong with some."""

from __future__ import annotations

import pytest

from supervisor.lifecycle.plan import changed_keys
from tests.unit.definitions.loading import Files, load_paths
from workers.function.main import Caller

SYSLOG = """
module("syslog",package.seeall)
depends(_M,"iptables","ntpd")

description = [[
Syslog is the facility by which many daemons use to log messages to various
system log files. It is a good idea to always run syslog.]]

function start()
  return true
end
function stop()
end
function restart()
end
function reload()
end
function status()
end
module("iptables", package.seeall)
module("ntpd", package.seeall)
"""


def test_the_start_up_script_of_the_pattern(files: Files) -> None:
    service = files.load(SYSLOG).services["syslog"]
    assert service.depends == ("iptables", "ntpd")
    assert service.functions == ("start", "stop", "restart", "reload", "status")
    assert service.description.startswith("Syslog is the facility by which many daemons use to log messages to ")
    assert (service.user, service.uid, service.gid) == ("root", 0, 0)
    assert not service.has_process
    assert not service.functions_as_root  # it has no other user than root
    assert service.lines["depends"] == 3
    assert service.lines["start()"] == 9


def test_the_text_of_functions_is_named_by_its_digest(files: Files) -> None:
    services = files.load(SYSLOG).services
    assert len(services["syslog"].source_digest) == 64
    assert services["iptables"].source_digest == ""
    assert files.load(SYSLOG + "\n").services["syslog"].source_digest != services["syslog"].source_digest


REACHED = """
local shared = { level = 1, path = "/run/a" }
local function helper(text) return text .. shared.path end
web = { exec = "/bin/web" }
_setting = { "used by name" }
module("one", package.seeall)
function start()
  proc.exec(helper("x"))
end
module("two", package.seeall)
local count = 5
function start() return function() return count, _setting[1] end end
module("three")
exec = "/bin/three"
function stop() return string.rep("x", 3) end
function status() return _mine() end
function _mine() return 1 end
"""


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ('"/bin/web"', '"/bin/other"', ""),
        ("function start()\n", "-- says more\n\nfunction start()\n", ""),
        ('exec = "/bin/three"', 'exec = "/bin/four"', ""),
        ("count = 5", "count = 6", "two"),
        ('"x")', '"y")', "one"),
        ('"/run/a"', '"/run/b"', "one"),
        ("level = 1", "level = 2", "one"),
        ("used by name", "changed", "two"),
        ("return 1", "return 2", "three"),
        ("string.rep", "string.lower", "three"),
        ("function status()", "function start() end function status()", "three"),
        ("return text ..", "return _G[text] ..", "one"),
    ],
)
def test_functions_are_known_by_all_that_they_depend_on(files: Files, old: str, new: str, changed: str) -> None:
    assert REACHED.count(old) >= 1
    before, after = (files.load(text).services for text in (REACHED, REACHED.replace(old, new, 1)))
    names = ["one", "two", "three"]
    assert all(before[name].functions_digest for name in names)
    assert all(before[name].source_digest != after[name].source_digest for name in names)
    assert [name for name in names if "functions" in changed_keys(before[name], after[name])] == changed.split()


@pytest.mark.parametrize(
    "body",
    [
        "return _G.web",
        "return _M.web",
        "return netns.a",
        "return loadstring('web')()",
        "return debug.getfenv(1)",
        "return _M == environment",
        "return thread",
        "return by_table",
        "local l = {} return function() return large, l end",
    ],
)
def test_functions_that_may_reach_anything_depend_on_the_whole_file(files: Files, body: str) -> None:
    text = f"""
    local thread = coroutine.create(function() end)
    local by_table = {{ [{{}}] = 1 }}
    local large = {{}}
    for i = 1, 30000 do large[i] = i end
    module("one", package.seeall)
    local environment = _M
    function start() {body} end
    """
    service = files.load(text).services["one"]
    assert (len(service.source_digest), service.functions_digest) == (64, "")


@pytest.mark.parametrize(
    "change",
    [
        "function string.trim(text) return text end",
        "rawset(fsys, 'trim', print)",
        "math.floor = math.ceil",
        "table.concat = nil",
        "setmetatable(os, {})",
    ],
)
def test_functions_depend_on_the_whole_file_if_it_changes_what_is_given(files: Files, change: str) -> None:
    text = f"{change} module('one', package.seeall) function start(text) return text:trim() end"
    assert files.load(text).services["one"].functions_digest == ""


ONE = "module('one', package.seeall) "


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            ONE + "do local n = 0 function start() n = n + 1 end function stop() n = n - 1 end end",
            ONE + "do local n = 0 function start() n = n + 1 end end do local n = 0 function stop() n = n - 1 end end",
        ),
        (
            f"local function set() _x = 1 end {ONE} function start() set() end",
            f"{ONE} local function set() _x = 1 end function start() set() end",
        ),
        (
            ONE + "local t = {} t[0.1], t[0.1 + 2e-17] = 1, 2 function start() return t end",
            ONE + "local t = {} t[0.1], t[0.1 + 2e-17] = 3, 2 function start() return t end",
        ),
        (
            ONE + "local handle = file('/a') function start() return handle.x end",
            ONE + "local handle = file('/a') rawset(handle, 'x', 1) function start() return handle.x end",
        ),
    ],
)
def test_functions_differ_by_shared_variables_assignments_and_keys(files: Files, old: str, new: str) -> None:
    before, after = (files.load(text).services["one"] for text in (old, new))
    assert before.functions_digest
    assert "functions" in changed_keys(before, after)


def test_what_another_time_would_choose_is_in_the_text_alone(files: Files) -> None:
    text = """
    module("one", package.seeall)
    if os.time() > 0 then function start() return "now" end
    else function start() return "then" end end
    """
    before = files.load(text).services["one"]
    other = files.load(text.replace('"then"', '"once"')).services["one"]
    assert other.source_digest != before.source_digest
    assert "functions" not in changed_keys(before, other)
    named = files.load(text.replace('"now"', '"once"')).services["one"]
    assert "functions" in changed_keys(before, named)


def test_the_code_around_functions_sees_the_same_when_they_are_called(files: Files) -> None:
    """Whether libraries may be used would let it define others than those that were compared."""
    text = """
    module("one", package.seeall)
    if pcall(function() fsys.stat("/") end) or io or debug or loadstring then function start() return "call" end
    else function start() return "both" end end
    """
    before, after = (files.load(each).services["one"] for each in (text, text.replace('"both"', '"other"')))
    assert "functions" in changed_keys(before, after), "they were compared"
    caller = Caller()
    assert caller.evaluate(text, "/t.lua").ok
    assert caller.call("one", "start").text == "both"


def test_large_keys_need_no_memory_of_their_own(files: Files) -> None:
    text = """
    local large, long = {}, ("x"):rep(100)
    for i = 1, 200000 do large[long .. i] = true end
    module("one")
    function start() return large end
    """
    assert files.load(text).services["one"].functions_digest == ""


def test_what_functions_lead_to_may_lead_back(files: Files) -> None:
    text = """
    local a, b = {}, setmetatable({}, { __index = function() error("is not called") end })
    a.b, b.a = b, a
    module("one")
    function start() return start, a, b, b end
    """
    assert len(files.load(text).services["one"].functions_digest) == 64


def test_one_with_a_process_has_the_keys_of_a_table(files: Files) -> None:
    text = """
    module("web", package.seeall)
    exec = "/bin/web"
    arg = { "-v", 1 }
    fd = {
      tcp("127.0.0.1", 80),
      file("/etc/secret"),
    }
    limits = { nofile = 9 }
    function start() end
    """
    service = files.load(text).services["web"]
    assert service.exec == "/bin/web"
    assert service.arg == ("-v", "1")
    assert [spec.kind for spec in service.fd] == ["tcp", "file"]
    assert service.limits == {"nofile": (9, 9)}
    assert service.user == "nobody"
    assert service.functions_as_root


def test_functions_have_the_user_that_a_module_says(files: Files) -> None:
    text = """
    module("one", package.seeall) exec = "/bin/x" user = "daemon" function start() end
    module("two", package.seeall) user = "daemon" function start() end
    """
    one, two = files.load(text).services.values()
    assert (one.user, one.functions_as_root) == ("daemon", False)
    assert (two.user, two.functions_as_root) == ("daemon", False)


def test_defaults_of_the_file_hold_for_modules(files: Files) -> None:
    text = """
    module("one", package.seeall) function start() end
    _DEFAULT = { user = "daemon", cwd = "/srv" }
    module("two", package.seeall) exec = "/bin/x" function start() end
    """
    one, two = files.load(text).services.values()
    assert (one.user, one.cwd, two.user, two.functions_as_root) == ("daemon", "/srv", "daemon", False)


def test_defaults_about_a_process_hold_for_what_has_one(files: Files) -> None:
    text = """
    _DEFAULT = { watchdog = "9s", ready = "notify", stdout = log(), kill_mode = "process", start_timeout = "9s" }
    group = { depends = { "one" } }
    module("one", package.seeall) function start() end
    module("two", package.seeall) exec = "/bin/x" function start() end
    module("three", package.seeall) check = { "/bin/x" } function start() end
    """
    group, one, two, three = files.load(text).services.values()
    for service in (group, one, three):
        assert (service.watchdog, service.ready, service.kill_mode) == (None, "exec", "all")
        assert "watchdog" not in service.lines
    assert (two.watchdog, two.ready, two.kill_mode) == (9, "notify", "process")
    assert [service.stdout.kind for service in (group, one, two, three)] == ["file", "file", "log", "log"]
    assert {service.start_timeout for service in (group, one, two, three)} == {9}


def test_modules_and_tables_in_one_file_keep_their_order(files: Files) -> None:
    text = 'b = { exec = "/bin/b" }\na = { depends = {"c"} }\nmodule("d", package.seeall)\nmodule("c", package.seeall)'
    assert list(files.load(text).services) == ["b", "a", "d", "c"]


@pytest.mark.parametrize("name", ["string", "table", "os", "package", "fsys", "syslog", "print", "module", "_G"])
def test_a_module_is_never_a_library_of_its_name(files: Files, name: str) -> None:
    text = f"""
    module("{name}", package.seeall)
    description = type(_M.format) .. type(_M.date) .. type(_M.seeall) .. type(rawget(_M, "seeall"))
    module("after", package.seeall)
    description = string.format("%s", type(table.concat))
    """
    services = files.load(text).services
    assert services[name].description == "nilnilnilnil"
    assert services["after"].description == "function"


def test_the_name_can_be_that_of_the_file(files: Files) -> None:
    assert list(files.load('module(..., package.seeall)\ndescription = "of " .. _NAME').services) == ["a"]


def test_modules_can_be_computed(files: Files) -> None:
    text = """
    local before
    for number = 1, 3 do
      module("s" .. number, package.seeall)
      if before then depends(_M, before) end
      before = _NAME
      function start() end
    end
    """
    services = files.load(text).services
    assert {name: service.depends for name, service in services.items()} == {"s1": (), "s2": ("s1",), "s3": ("s2",)}
    assert all(service.functions == ("start",) for service in services.values())


def test_what_is_local_or_begins_with_an_underscore_is_its_own(files: Files) -> None:
    text = """
    local function shared() end
    module("x", package.seeall)
    _state = {}
    function _helper() end
    local function own() end
    function start() shared() own() _helper() end
    """
    assert files.load(text).services["x"].functions == ("start",)


def test_what_is_taken_back_is_not_given_twice(files: Files) -> None:
    text = 'restart = "never" restart = nil function restart() end function stop() end stop = nil'
    assert files.load(f'module("x", package.seeall) {text}').services["x"].functions == ("restart",)


def test_the_output_of_a_check_is_its_own(files: Files) -> None:
    text = 'module("x", package.seeall) check = { "/bin/true" } stdout = file("/var/log/x", "a") function start() end'
    assert files.load(text).services["x"].stdout.path == "/var/log/x"


def test_a_file_can_name_libraries_for_its_functions(files: Files) -> None:
    text = """
    local fsys = fsys
    module("x", package.seeall)
    local run = proc
    function start() return fsys.mkdir("/x") and run.run("/bin/true") and syslog.log("info", unix.users.root.home) end
    """
    assert files.load(text).services["x"].functions == ("start",)


def test_a_group_depends_on_others_and_has_nothing_else(files: Files) -> None:
    text = 'a = { exec = "/bin/a" }\ngroup = { depends = "a", description = "all", status = "stop" }'
    service = files.load(text).services["group"]
    assert (service.has_process, service.depends, service.autostart) == (False, ("a",), False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("module()", "a.lua:1: module: the name has to be text, not a nil"),
        ('module("x", 1)', "a.lua:1: module: an option has to be a function, like package.seeall"),
        (
            'module("x")\ndepends(_M, "y")',
            "a.lua:2: attempt to call global 'depends' (a nil value); a module sees it with package.seeall",
        ),
        ('error(select(2, pcall(module, "x")), 0)', "module(…) is to be called by the file itself"),
        ('depends("x")', "a.lua:1: depends: _M comes first"),
        ('module("x", package.seeall)\ndepends(_M, nil)', "a.lua:2: depends: the name number 1 is nil"),
        ('module("x", package.seeall)\ndepends(_M, {})', "a.lua:2: x: depends[1]: has to be text, not a table"),
        ('module("x", package.seeall)\ndepends(_M, "y")', "a.lua:2: x: depends[1]: unknown service 'y'"),
        (
            'module("x", package.seeall)\ndepends(_M, "x")\ndepends = {}',
            "a.lua:3: depends(…) was called already, on line 2",
        ),
        ('module("log", package.seeall)', "a.lua:1: 'log' cannot be the name of a service: the built-in log worker"),
        ('module("a/b", package.seeall)', "a.lua:1: 'a/b' cannot be the name of a service: up to 64 of"),
        (
            'module("x", package.seeall)\nfunction strat() end',
            "a.lua:2: x: unknown function 'strat', did you mean 'start'?",
        ),
        (
            'module("x", package.seeall)\nfunction helper() end',
            "a.lua:2: x: unknown function 'helper'; one that others call has to be local",
        ),
        ('module("x", package.seeall)\nusr = "root"', "a.lua:2: x: unknown key 'usr', did you mean 'user'?"),
        (
            'module("x", package.seeall)\nlimits = {\n  core = 0,\n  stck = 1,\n}',
            "a.lua:4: x: limits.stck: unknown resource, did you mean 'stack'?",
        ),
        (
            'module("y", package.seeall)\nenv = { A = "1" }\nmodule("x", package.seeall)\nenv = {\n  A = {},\n}',
            "a.lua:5: x: env.A: has to be text or a number",
        ),
        (
            'module("x", package.seeall)\nfunction start() end\nfunction start() end',
            "a.lua:3: x: key 'start' is given twice, first on line 2",
        ),
        (
            'module("x", package.seeall)\nrestart = "never"\nfunction restart() end',
            "a.lua:3: x: key 'restart' is given twice, first on line 2; beside a function of its name a key has to be",
        ),
        (
            'module("x", package.seeall)\nfunction status() end\nstatus = "stop"',
            "a.lua:3: x: key 'status' is given twice, first on line 2; beside a function of its name a key has to be",
        ),
        (
            'module("x", package.seeall)\nstdout = log()',
            "a.lua:2: x: stdout: is for a process or a check, and this module has none: functions write to the log",
        ),
        ('module("x", package.seeall)\nready = "notify"', "a.lua:2: x: ready: is about a process, and this module has"),
        ('module("x", package.seeall)\nmodule("x", package.seeall)', "a.lua:2: x: is defined at a.lua:1 as well"),
        ('x = { exec = "/bin/x", start = function() end }', "a.lua:1: x: unknown key 'start'"),
        ('x = { depends = "y", user = "root" }\ny = { exec = "/bin/y" }', "a.lua:1: x: has neither exec nor worker"),
        ("function helper() end", "a.lua:1: 'helper' is a function, not a table"),
        (
            'module("a", package.seeall)\ndepends(_M, "b")\nmodule("b", package.seeall)\ndepends(_M, "a")',
            "a.lua:2: a: depends: cannot be ordered: a -> b -> a",
        ),
        ('fsys.mkdir("/x")', "a.lua:1: fsys is for the functions of a module, when they run"),
        ("local m = proc.kill", "a.lua:1: proc is for the functions of a module, when they run"),
        ("syslog.x = 1", "a.lua:1: syslog is a library, it cannot be changed"),
    ],
)
def test_errors(files: Files, text: str, problem: str) -> None:
    problems = files.problems(text)
    assert len(problems) == 1, problems
    assert problems[0].removeprefix("a.lua:1: ").startswith(problem.removeprefix("a.lua:1: ")), problems


def test_a_file_that_cannot_be_evaluated_may_have_what_others_need(files: Files) -> None:
    paths = [
        files.write('module("x", package.seeall)\ndepends(_M, "y", "b", "c")'),
        files.write('module("y", package.seeall)\nmodule(..., package.seeall)\nnil', "b.lua"),
    ]
    problems = files.problems_of(lambda: load_paths(*paths))
    assert problems == ["b.lua:3: unexpected symbol near 'nil'", "a.lua:2: x: depends[3]: unknown service 'c'"]
