-- What a definition file sees.  Returns a table: how to load a file's text, and what came of it.
--
-- Everything that it needs is taken into locals first, `seal` then empties the real globals: a definition sees a table of
-- its own with the constructors and the pure libraries in it, and no function that leads back out.

local source -- the name of the file's chunk
local PRINTS = 50
local STEPS = 10000 -- instructions between two looks at the clock, some 100 µs apart

local clock, getinfo, sethook = os.clock, debug.getinfo, debug.sethook
local getmetatable, loadstring, setfenv = debug.getmetatable, loadstring, setfenv
local error, next, pcall, select = error, next, pcall, select
local setmetatable, tostring, type = setmetatable, tostring, type
local concat, sub = table.concat, string.sub

local made = {} -- what a constructor was called with, by the empty table that it returned
local prints, undefined, seen = {}, {}, {}

local has_lines -- whether anybody wants to know lines: finding them is what a file of many modules takes longest for

-- The line of the definition that is running, seen through any prelude and C functions above it.
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

-- LuaJIT bounds its own stack but not that of C, on which every callback of gsub and every coroutine inside another one
-- stands: too many of them would end the process with SEGV.  So these count how deep they are in each other.
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
  if type(thread) ~= "thread" then return resume(thread) end -- which says what is wrong with that
  return resumed(enter(), resume(thread, ...))
end

local function counting_wrap(called)
  local thread = create(called)
  return function(...)
    if status(thread) == "dead" then error("cannot resume dead coroutine", 2) end
    return leave(enter(), resume(thread, ...))
  end
end

-- LuaJIT calls no hook while an error handler runs that a hook's error started: the handler of a definition runs after
-- the unwinding, or an endless loop in it would be out of the clock's reach.
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

-- The libraries that act on the host.  A file may name them; what is in them is for its functions, when these run.
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

-- What assignments go to: kept in `store`, so that every one of them comes by here.
local function scope()
  return { store = {}, order = {}, where = {}, twice = {} }
end

-- Whether what was there is lost by accident: another table or function, or one of a key and a function of its name.
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

local function read(_, name)
  local value = file.store[name]
  if value == nil then value = base[name] end
  if value == nil then unknown(name) end
  return value
end

setmetatable(globals, {
  __index = read,
  __newindex = assign_global,
  __metatable = false,
})

-- Modules: each has globals of its own.  They are always new ones: a library of the same name is nobody's module.
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

-- What came by rawset, too.
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

-- The text as a function that has not run yet, or nil and a message; `name` is what messages begin with, see `load`.
-- Without `lines` everything that is said of it has line 0.
function sandbox.load(text, name, lines)
  source, has_lines = name, lines
  if sub(text, 1, 1) == "\27" then return nil, "compiled Lua is not accepted, only text", 1 end
  local chunk, message = loadstring(text, name)
  if chunk then setfenv(chunk, globals) end
  return chunk, message
end

local overtime -- the line that the time was up on
local seen_at -- the line on which the clock was looked at last

-- Has what runs from now on end after so many seconds of CPU time.  Once they are up the hook comes before every
-- instruction of the file, so that no pcall keeps it alive.  Code that is compiled calls no hook: none may be.
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

-- The end of that; returns the line that it was on when the time was up, nil where it was not, and one on which it had
-- been not long before the end: after a stack overflow there is no room to ask for the line.
function sandbox.unwatch()
  sethook()
  return overtime, seen_at
end

function sandbox.file() return complete(file, globals) end

function sandbox.netns() return complete(spaces, netns) end

function sandbox.modules()
  for _, found in next, modules do complete(found, found.env) end
  return modules
end

-- From now on what is in the libraries can be used: tables by name.
function sandbox.open(found) libraries = found end

function sandbox.seal()
  local strings = getmetatable("")
  strings.__index, strings.__metatable = base.string, false
  for _, real in next, { package.loaded, package.preload, package.loaders, package, debug, io, os, python, _G } do
    for key in next, real do real[key] = nil end
  end
end

return sandbox
