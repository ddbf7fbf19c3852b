-- Common parts of all libraries for scripts: errors that name the script's line, checks of arguments, opaque objects
-- that a script cannot change, and calls of Python's functions.
--
-- A library is a file that is called with this kernel and with its own functions of Python, and returns its globals in
-- a table.  The arguments of a method are counted from 1, without its object.

local error, getinfo, getmetatable, newproxy, next = error, debug.getinfo, getmetatable, newproxy, next
local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local concat, find, floor, format, huge = table.concat, string.find, math.floor, string.format, math.huge

local kernel = {}
local OURS = "^=%[lua/" -- the sources of these files; the sources of scripts are paths

-- Errors

-- The current line of the script, below all frames of these files and of C; empty if a tail call has removed it.
local function where()
  for level = 2, huge do
    local info = getinfo(level, "Sl")
    if not info then return "" end
    if info.currentline > 0 and not find(info.source, OURS) then
      return format("%s:%d: ", info.short_src, info.currentline)
    end
  end
end

function kernel.raise(message) error(where() .. message, 0) end
local raise = kernel.raise

function kernel.bad(name, number, what) raise(format("bad argument #%d to '%s' (%s)", number, name, what)) end
local bad = kernel.bad

-- Objects: userdata, each with a state that is private to its library.

local states = setmetatable({}, { __mode = "k" }) -- a state must not hold its object, or neither is ever collected

-- `methods` is a table, or a function of the object's state and a key.
function kernel.class(name, methods, show)
  local class = { name = name, template = newproxy(true) }
  local meta = getmetatable(class.template)
  meta.__index = methods
  if type(methods) == "function" then
    meta.__index = function(object, key) return methods(states[object], key) end
  end
  meta.__newindex = function() raise("cannot change an object: " .. name) end
  meta.__tostring = function(object)
    local state = states[object]
    return state and show and show(state) or name
  end
  meta.__metatable = false
  return class
end

function kernel.object(class, state)
  local object = newproxy(class.template)
  state.class = class
  states[object] = state
  return object
end

function kernel.state(class, value)
  local state = type(value) == "userdata" and states[value]
  if state and state.class == class then return state end
end
local state_of = kernel.state

local function kind(value)
  local state = type(value) == "userdata" and states[value]
  return state and state.class.name or type(value)
end

-- The state of the object of a method call.
function kernel.self(class, name, value)
  local state = state_of(class, value)
  if state then return state end
  raise(format("calling '%s' on bad self (%s expected, got %s); is it called with a colon?", name, class.name, kind(value)))
end

-- Arguments: each function returns the value in its final form, or raises an error.

local function expected(name, number, what, value) bad(name, number, what .. " expected, got " .. kind(value)) end

-- Text; numbers are converted, as in Lua's own libraries.
function kernel.string(name, number, value)
  local its = type(value)
  if its == "string" then return value end
  if its == "number" then return tostring(value) end
  expected(name, number, "string", value)
end

function kernel.integer(name, number, value, least, most)
  local integer = tonumber(value)
  if not integer then expected(name, number, "number", value) end
  if integer ~= floor(integer) or integer < least or integer > most then
    bad(name, number, format("an integer from %.0f to %.0f expected, got %s", least, most, tostring(value)))
  end
  return integer
end

function kernel.table(name, number, value)
  if type(value) == "table" then return value end
  expected(name, number, "table", value)
end

function kernel.callback(name, number, value)
  if type(value) == "function" then return value end
  expected(name, number, "function", value)
end

-- One of a few words.
function kernel.choice(name, number, value, choices)
  if type(value) == "string" then
    for i = 1, #choices do
      if choices[i] == value then return value end
    end
    bad(name, number, format("'%s' expected, got '%s'", concat(choices, "' or '"), value))
  end
  expected(name, number, "string", value)
end

-- Rejects surplus arguments, which the script would otherwise believe to have an effect.
function kernel.no_more(name, most, ...)
  if (...) ~= nil then bad(name, most + 1, format("no more than %d expected", most)) end
end

function kernel.expected(...) expected(...) end

-- Python's functions return one of these, and then the values or the message.

local DONE, FAILED, RAISED = 0, 1, 2

function kernel.settle(answer, ...)
  if answer == DONE then return ... end
  if answer == FAILED then return nil, ... end
  raise((...))
end
local settle = kernel.settle

function kernel.functions(plain)
  local wrapped = {}
  for name, called in next, plain do
    wrapped[name] = function(...) return settle(called(...)) end
  end
  return wrapped
end

return kernel
