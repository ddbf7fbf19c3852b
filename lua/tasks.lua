-- Each call of a script's function runs in a coroutine of its own, a task, which waits by yielding WAIT to the host.
-- The script's own coroutines pass WAIT on through every resume, so that a wait in them goes to the host rather than
-- returning to the script.  A task that yields anything else is suspended until the script resumes it.

local create, isyieldable, resume, running = coroutine.create, coroutine.isyieldable, coroutine.resume, coroutine.running
local status, yield = coroutine.status, coroutine.yield
local error, gsub, loadfile, loadstring = error, string.gsub, loadfile, loadstring
local next, rawget, select, setmetatable, sub = next, rawget, select, setmetatable, string.sub
local collectgarbage, concat, tostring = collectgarbage, table.concat, tostring
local traceback, type = debug.traceback, type

local kernel, log, told = ... -- told: tells Python the state of a task resumed by the script, in the form of `look`
local globals = _G
local WAIT = {}
local DONE, RAISED, WAITS = 0, 2, 3 -- answers of Python; WAITS: the task gets the values later
local CANNOT_WAIT = "cannot wait in a function that string.gsub, table.sort or another function of C calls"

-- The script's own coroutines

local WEAK = { __mode = "k" }
local waiting = setmetatable({}, WEAK) -- coroutines that wait for the host, tasks among them
local main -- the coroutine of the script itself, which nobody can resume

-- Tasks, by the host's number.

local threads = {} -- those that wait for the host
local suspended = setmetatable({}, { __mode = "v" }) -- weak: a thread that the script has lost can never be resumed
local numbers = setmetatable({}, WEAK) -- the numbers of threads that are, or were, suspended

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

function coroutine.create(called) return create(kernel.callback("create", 1, called)) end

-- Keeps a task that has yielded; returns true if it waits for the host, false if it waits for the script.
local function keep(number, thread, yielded)
  if yielded == WAIT then
    waiting[thread], threads[number] = true, thread
    return true
  end
  numbers[thread], suspended[number] = number, thread
  return false
end

-- Omits frames of these files, which say nothing about the script.
local function trace(thread, problem)
  return (gsub(traceback(thread, tostring(problem)), "\n\t%[lua/[^\n]*", ""))
end

-- Called after the script has resumed a task.  A wait for the host blocks only the task, so the script continues.
local function handed_over(number, thread, fine, ...)
  local now = status(thread)
  if now == "dead" then
    numbers[thread] = nil
    told(number, not fine and trace(thread, (...)) or nil)
  elseif now == "suspended" and keep(number, thread, (...)) then
    told(number, true)
    return true
  end
  return fine, ...
end

function coroutine.resume(thread, ...)
  if waiting[check("resume", thread)] then return false, "cannot resume non-suspended coroutine" end
  local number = numbers[thread]
  if not number then return passed(thread, resume(thread, ...)) end
  suspended[number] = nil
  return handed_over(number, thread, resume(thread, ...))
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

function coroutine.isyieldable() return running() ~= main and isyieldable() end

function coroutine.yield(...)
  if running() == main then kernel.raise("attempt to yield from outside a coroutine") end
  return yield(...)
end

-- Files that a script runs may wait as well; below a function of C they could not.
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

-- Functions of Python after which the task may have to wait.
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

-- Each of these returns nil for a task that has ended, true if it waits for the host, false if it is suspended; and the
-- traceback of an error.

local callbacks = {}

local function look(number, thread, fine, first)
  if fine and status(thread) ~= "dead" then return keep(number, thread, first) end
  numbers[thread] = nil
  if fine then return nil end
  return trace(thread, first)
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
  main = create(chunk)
  return look(number, main, resume(main))
end

function host.kind(name) return type(rawget(globals, name)) end

-- Calls a global function, with the cgroup of the handle, if any.
function host.call(number, name, handle)
  local called = rawget(globals, name)
  if handle == nil then return start(number, called) end
  return start(number, called, kernel.cgroup(handle))
end

function host.call_back(number, key) return start(number, callbacks[key]) end

function host.resume(number, ...)
  local thread = threads[number]
  threads[number], waiting[thread] = nil, nil
  return look(number, thread, resume(thread, ...))
end

function host.collect() collectgarbage() end

-- Whether a suspended task can still be resumed; known after `collect`.
function host.is_suspended(number) return suspended[number] ~= nil end

-- Registers a function that Python calls by its number.
function kernel.keep(called)
  callbacks[#callbacks + 1] = called
  return #callbacks
end

return host
