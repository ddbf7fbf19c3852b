-- Each call of a script's function runs in a coroutine of its own, a task, which waits by yielding WAIT to the host.
-- Coroutines that the script makes itself pass WAIT on through every resume, so that what waits in them waits for the
-- host rather than returning to the script.

local create, isyieldable, resume, running = coroutine.create, coroutine.isyieldable, coroutine.resume, coroutine.running
local status, yield = coroutine.status, coroutine.yield
local error, gsub, loadfile, loadstring = error, string.gsub, loadfile, loadstring
local next, rawget, select, setmetatable, sub = next, rawget, select, setmetatable, string.sub
local concat, tostring, traceback, type = table.concat, tostring, debug.traceback, type

local kernel, log = ...
local globals = _G
local WAIT = {}
local DONE, RAISED, WAITS = 0, 2, 3 -- answers of Python; WAITS: the values come later, to the task
local CANNOT_WAIT = "cannot wait in a function that string.gsub, table.sort or another function of C calls"

-- The script's own coroutines

local WEAK = { __mode = "k" }
local own = setmetatable({}, WEAK)
local waiting = setmetatable({}, WEAK) -- those that wait for the host: their resume has not returned

local again

local function passed(thread, fine, ...)
  if not (fine and (...) == WAIT) then return fine, ... end
  if not isyieldable() then return again(thread, RAISED, CANNOT_WAIT) end
  waiting[thread] = true
  return again(thread, yield(WAIT))
end

function again(thread, ...)
  waiting[thread] = nil
  return passed(thread, resume(thread, ...))
end

local function check(name, value)
  if type(value) == "thread" then return value end
  kernel.expected(name, 1, "coroutine", value)
end

function coroutine.create(called)
  local thread = create(kernel.callback("create", 1, called))
  own[thread] = true
  return thread
end

function coroutine.resume(thread, ...)
  if waiting[check("resume", thread)] then return false, "cannot resume non-suspended coroutine" end
  return passed(thread, resume(thread, ...))
end

function coroutine.status(thread)
  return waiting[check("status", thread)] and "normal" or status(thread)
end

local function unwrap(fine, ...)
  if fine then return ... end
  local message = ...
  if type(message) == "string" then kernel.raise(message) end
  error(message, 0)
end

function coroutine.wrap(called)
  local thread = coroutine.create(kernel.callback("wrap", 1, called))
  return function(...) return unwrap(coroutine.resume(thread, ...)) end
end

function coroutine.isyieldable() return own[running()] ~= nil and isyieldable() end

function coroutine.yield(...)
  if not own[running()] then kernel.raise("attempt to yield from outside a coroutine") end
  return yield(...)
end

-- A file that a script runs may wait as well, which it could not below a function of C.
function dofile(path)
  local chunk, message = loadfile(path)
  if not chunk then kernel.raise(message) end
  return chunk()
end

function print(...)
  local words = {}
  for i = 1, select("#", ...) do words[i] = tostring((select(i, ...))) end
  log(concat(words, "\t"))
end

-- Waiting

local function answered(answer, ...)
  if answer == WAITS then return kernel.settle(yield(WAIT)) end
  return kernel.settle(answer, ...)
end

-- Functions of Python that may have the task wait.
function kernel.waiting(plain)
  local wrapped = {}
  for name, called in next, plain do
    wrapped[name] = function(...)
      if not isyieldable() then kernel.raise(CANNOT_WAIT) end
      return answered(called(...))
    end
  end
  return wrapped
end

-- Tasks, by the host's number.  Each of these returns nil when the task has ended, true while it waits, and the
-- traceback of an error.

local threads = {}
local callbacks = {}

local function look(number, thread, fine, problem)
  if fine and status(thread) ~= "dead" then
    threads[number] = thread
    return true
  end
  threads[number] = nil
  if fine then return nil end
  -- frames of these files say nothing about the script
  return (gsub(traceback(thread, tostring(problem)), "\n\t%[lua/[^\n]*", ""))
end

local function start(number, called, ...)
  local thread = create(called)
  return look(number, thread, resume(thread, ...))
end

local host = {}

function host.run(number, text, name)
  if sub(text, 1, 1) == "#" then text = "--" .. text end
  local chunk, message = loadstring(text, name)
  if not chunk then return message end
  return start(number, chunk)
end

function host.has(name) return type(rawget(globals, name)) == "function" end

-- Calls a global function, with the cgroup of that handle where there is one.
function host.call(number, name, handle)
  local called = rawget(globals, name)
  if handle == nil then return start(number, called) end
  return start(number, called, kernel.cgroup(handle))
end

function host.call_back(number, key) return start(number, callbacks[key]) end

function host.resume(number, ...)
  local thread = threads[number]
  return look(number, thread, resume(thread, ...))
end

-- A function that Python can have called, by a number.
function kernel.keep(called)
  callbacks[#callbacks + 1] = called
  return #callbacks
end

return host
