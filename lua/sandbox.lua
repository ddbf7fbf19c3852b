-- The environment of a definition file.  Returns a table with the functions that load a file, and with their results.
--
-- The sandbox first copies its own needs into locals; `seal` then empties the real globals.  A definition sees a table
-- of its own with the constructors and the pure libraries, and no function that leads back out.

local source -- the name of the file's chunk
local PRINTS = 50
local STEPS = 10000 -- instructions between two looks at the clock, some 100 µs apart

local clock, getinfo, sethook = os.clock, debug.getinfo, debug.sethook
local getmetatable, loadstring, setfenv = debug.getmetatable, loadstring, setfenv
local error, next, pcall, select = error, next, pcall, select
local setmetatable, tostring, type = setmetatable, tostring, type
local concat, sub = table.concat, string.sub

local made = {} -- arguments of constructors, by the empty tables that they returned
local prints, undefined, seen = {}, {}, {}

local has_lines -- whether lines are needed: finding them dominates the time for a file with many modules

-- The current line of the definition, below the frames of preludes and of C.
local function running()
  if not has_lines then return 0 end
  for level = 2, 50 do
    local info = getinfo(level, "Sl")
    if not info then return 0 end
    if info.source == source and info.currentline > 0 then return info.currentline end
  end
  return 0
end

local function sealed(what)
  local function refuse() error(what, 2) end
  return { __index = refuse, __newindex = refuse, __call = refuse, __metatable = false }
end

local DESCRIPTOR = sealed("a descriptor has no fields to read or change; its options go into the constructor")
local PORT = sealed("a port has no fields to read or change")

local function constructor(kind)
  return function(...)
    local handle = setmetatable({}, DESCRIPTOR)
    made[handle] = { kind = kind, line = running(), count = select("#", ...), ... }
    return handle
  end
end

local function port(_, name)
  local handle = setmetatable({}, PORT)
  made[handle] = { kind = "port", line = running(), count = 1, name }
  return handle
end

local function note(...)
  if #prints >= PRINTS then return end
  local words = {}
  for i = 1, select("#", ...) do
    local word = select(i, ...)
    words[i] = (type(word) == "string" or type(word) == "number") and tostring(word) or type(word)
  end
  prints[#prints + 1] = { running(), sub(concat(words, " "), 1, 400) }
end

local function settle(handler, fine, ...)
  if fine then return true, ... end
  return false, handler((...))
end

-- LuaJIT limits its own stack but not that of C, which every nested coroutine and every callback of gsub uses: too many
-- of them would end the process with SEGV.  So the nesting is counted.
local NESTED = 200
local nested = 0

local function enter()
  if nested >= NESTED then
    error("stack overflow: " .. NESTED .. " callbacks of gsub or coroutines run inside each other; an endless recursion?", 3)
  end
  nested = nested + 1
  return nested - 1
end

local function leave(before, fine, ...)
  nested = before
  if fine then return ... end
  error((...), 0)
end

local function counted(called)
  return function(...) return leave(enter(), pcall(called, ...)) end
end

local gsub, resume, create, status = string.gsub, coroutine.resume, coroutine.create, coroutine.status

local function counting_gsub(text, pattern, with, ...)
  if type(with) == "table" and getmetatable(with) then
    local fields = with
    with = function(key) return fields[key] end
  end
  if type(with) == "function" then with = counted(with) end
  return gsub(text, pattern, with, ...)
end

local function resumed(before, ...)
  nested = before
  return ...
end

local function counting_resume(thread, ...)
  if type(thread) ~= "thread" then return resume(thread) end -- raises the error
  return resumed(enter(), resume(thread, ...))
end

local function counting_wrap(called)
  local thread = create(called)
  return function(...)
    if status(thread) == "dead" then error("cannot resume dead coroutine", 2) end
    return leave(enter(), resume(thread, ...))
  end
end

-- LuaJIT calls no hook in an error handler that a hook's error started.  So the handler of a definition runs after the
-- unwinding, where the time limit ends an endless loop in it.
local function guarded(called, handler, ...) return settle(handler, pcall(called, ...)) end

local function copy(from, ...)
  local to = {}
  for i = 1, select("#", ...) do
    local name = select(i, ...)
    to[name] = from[name]
  end
  return to
end

local base = copy(_G, "assert", "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget",
  "rawset", "select", "setmetatable", "tonumber", "tostring", "type", "unpack", "_VERSION")
base.xpcall = guarded
base.string = copy(string, "byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "rep",
  "reverse", "sub", "upper")
base.string.gsub = counting_gsub
base.table = copy(table, "concat", "insert", "maxn", "remove", "sort")
base.math = copy(math, "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod",
  "frexp", "huge", "ldexp", "log", "log10", "max", "min", "modf", "pi", "pow", "rad", "random", "randomseed", "sin",
  "sinh", "sqrt", "tan", "tanh")
base.bit = copy(bit, "arshift", "band", "bnot", "bor", "bswap", "bxor", "lshift", "rol", "ror", "rshift", "tobit",
  "tohex")
base.coroutine = copy(coroutine, "create", "resume", "running", "status", "wrap", "yield")
base.coroutine.resume, base.coroutine.wrap = counting_resume, counting_wrap
base.os = copy(os, "clock", "date", "difftime", "time")
base.print = note
base.ports = setmetatable({}, {
  __index = port,
  __newindex = function() error("ports is the database of this host, it cannot be changed", 2) end,
  __metatable = false,
})
for _, kind in next, { "file", "udp", "tcp", "stream", "dgram", "seqpacket", "log" } do
  base[kind] = constructor(kind)
end

-- The libraries that act on the host.  A file may name them; only its functions may use them, once they run.
local libraries

local function library(name)
  local function look(_, key)
    if not libraries then error(name .. " is for the functions of a module, when they run", 2) end
    return libraries[name][key]
  end
  local function refuse() error(name .. " is a library, it cannot be changed", 2) end
  return setmetatable({}, { __index = look, __newindex = refuse, __metatable = false })
end

for _, name in next, { "fsys", "net", "proc", "unix", "syslog" } do
  base[name] = library(name)
end

-- The target of assignments: values are kept in `store`, so that each assignment calls this function.
local function scope()
  return { store = {}, order = {}, where = {}, twice = {} }
end

-- Whether an assignment loses a value by accident: another table or function, or a key or a function of the same name.
local function is_lost(before, value)
  local was, is = type(before), type(value)
  if before == value or was == "nil" or is == "nil" then return false end
  return was == is and (is == "table" or is == "function") or (was == "function") ~= (is == "function")
end

local function assign(into, name, value)
  local before = into.store[name]
  if into.where[name] == nil then
    into.order[#into.order + 1] = name
  elseif is_lost(before, value) then
    into.twice[name] = into.where[name]
  end
  into.where[name] = running()
  into.store[name] = value
end

-- Network namespaces, `netns.NAME = { … }`; a table that is given to `netns` itself adds its entries.
local spaces, netns = scope(), {}
setmetatable(netns, {
  __index = spaces.store,
  __newindex = function(_, name, value) assign(spaces, name, value) end,
  __metatable = false,
})
base.netns = netns

local file = scope()
local globals = {}
base._G = globals

local function assign_global(_, name, value)
  if name ~= "netns" or type(value) ~= "table" or made[value] then return assign(file, name, value) end
  if value ~= netns then
    for key, space in next, value do assign(spaces, key, space) end
  end
end

local function unknown(name)
  if type(name) == "string" and not seen[name] then
    seen[name] = true
    undefined[#undefined + 1] = { name, running() }
  end
end

local reads_clock = false -- whether the file has named `os`, so that it may mean something else tomorrow

local function read(_, name)
  local value = file.store[name]
  if value == nil then
    value = base[name]
    if name == "os" then reads_clock = true end
  end
  if value == nil then unknown(name) end
  return value
end

setmetatable(globals, {
  __index = read,
  __newindex = assign_global,
  __metatable = false,
})

-- Modules, each with its own globals.  A module is always a new table, even if a library has its name.
local modules, module_of = {}, {}
local FOR_THE_FILE = { _DEFAULT = true, _SUPERVISOR = true }

local MODULE = { __metatable = false }

function MODULE.__index(env, key)
  local module = module_of[env]
  local value = module.store[key]
  if value == nil then value = module.own[key] end
  if value ~= nil then return value end
  if module.sees_all then return read(nil, key) end
  unknown(key)
end

function MODULE.__newindex(env, key, value)
  local module = module_of[env]
  if FOR_THE_FILE[key] then
    assign(file, key, value)
  elseif key == "depends" and #module.depends > 0 then
    error("depends(…) was called already, on line " .. module.depends[1][1], 2)
  else
    assign(module, key, value)
  end
end

local function new_module(name)
  local env, module = setmetatable({}, MODULE), scope()
  module.name, module.line, module.env, module.depends = name, running(), env, {}
  module.own = { _M = env, _NAME = name, _PACKAGE = "" }
  modules[#modules + 1], module_of[env] = module, module
  return env
end

function base.module(name, ...)
  if type(name) ~= "string" then error("module: the name has to be text, not a " .. type(name), 2) end
  local env = new_module(name)
  for i = 1, select("#", ...) do
    local option = select(i, ...)
    if type(option) ~= "function" then error("module: an option has to be a function, like package.seeall", 2) end
    option(env)
  end
  if getinfo(2, "S").source ~= source then error("module(…) is to be called by the file itself", 0) end
  setfenv(2, env)
end

base.package = {
  seeall = function(env)
    local found = module_of[env]
    if not found then error("package.seeall goes with module(…)", 2) end
    found.sees_all = true
  end,
}

function base.depends(env, ...)
  local found = module_of[env]
  if not found then error('depends: _M comes first, like depends(_M, "network")', 2) end
  for i = 1, select("#", ...) do
    local name = select(i, ...)
    if name == nil then error("depends: the name number " .. i .. " is nil", 2) end
    found.depends[#found.depends + 1] = { running(), name }
  end
end

-- Includes values set by rawset.
local function complete(into, env)
  for name, value in next, env do
    if into.where[name] == nil then
      into.order[#into.order + 1] = name
      into.where[name] = 0
    end
    into.store[name] = value
  end
  return into
end

local sandbox = { made = made, prints = prints, undefined = undefined, base = base, running = running }

-- Returns the text as a function that has not run yet, or nil and a message; messages begin with `name`, see `load`.
-- Without `lines`, all reports have line 0.
function sandbox.load(text, name, lines)
  source, has_lines = name, lines
  if sub(text, 1, 1) == "\27" then return nil, "compiled Lua is not accepted, only text", 1 end
  local chunk, message = loadstring(text, name)
  if chunk then setfenv(chunk, globals) end
  return chunk, message
end

local overtime -- the line on which the time was up
local seen_at -- the line of the last look at the clock

-- Ends the code that runs from now on after `seconds` of CPU time.  Then the hook runs before every instruction of the
-- file, so that no pcall keeps it alive.  The compiler is off, because compiled code calls no hook.
function sandbox.watch(seconds)
  local stop = clock() + seconds
  local function check()
    local info = getinfo(2, "Sl")
    local inside = info and info.source == source
    if inside then seen_at = info.currentline end
    if clock() <= stop then return end
    sethook(check, "", 1)
    if inside then
      overtime = info.currentline
      error("out of time", 2)
    end
  end
  sethook(check, "", STEPS)
end

-- Ends the limit.  Returns the line on which the time was up, or nil; and a line from shortly before the end, because a
-- stack overflow leaves no room to ask for the current one.
function sandbox.unwatch()
  sethook()
  return overtime, seen_at
end

function sandbox.file() return complete(file, globals) end

function sandbox.reads_clock() return reads_clock end

function sandbox.netns() return complete(spaces, netns) end

function sandbox.modules()
  for _, found in next, modules do complete(found, found.env) end
  return modules
end

-- Makes libraries usable from now on, given as tables by name.
function sandbox.open(found) libraries = found end

function sandbox.seal()
  local strings = getmetatable("")
  strings.__index, strings.__metatable = base.string, false
  for _, real in next, { package.loaded, package.preload, package.loaders, package, debug, io, os, python, _G } do
    for key in next, real do real[key] = nil end
  end
end

return sandbox
