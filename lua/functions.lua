-- Calls one function of one module, from the checked text.  The chunk gets the value of `sandbox.lua`, finds the
-- libraries among the globals, and returns a table with two functions:
--   evaluate(text, path, name, seconds)  whether the text could be evaluated (within `seconds`, if given), else
--                                        a message and the traceback of an error
--   call(module, function)               whether it succeeded, its message, and the traceback of an error

local sandbox = ...
local libraries = { fsys = fsys, net = net, proc = proc, unix = unix, syslog = syslog }
local compiler, traceback = jit, debug.traceback
local find, gmatch, sub = string.find, string.gmatch, string.sub
local concat, next, select, sort = table.concat, next, select, table.sort
local tostring, type, xpcall = tostring, type, xpcall
local stdout = io.stdout

local shown -- the part of the path that messages show

-- Functions may use the whole host, unlike the file itself.
local more = { io = io, os = os, debug = debug, loadstring = loadstring, collectgarbage = collectgarbage }
more.print = function(...)
  local words = {}
  for i = 1, select("#", ...) do words[i] = tostring((select(i, ...))) end
  stdout:write(concat(words, "\t"), "\n")
  stdout:flush()
end

local function whole(from)
  local to = {}
  for name, value in next, from do to[name] = value end
  return to
end

for _, name in next, { "io", "os", "debug" } do more[name] = whole(more[name]) end
more.os.exit = libraries.proc.exit

-- The message, and the frames from the error up to the function, without those of this file.
local function trace(message)
  if type(message) ~= "string" then message = "an error that is not a string but a " .. type(message) end
  local lines, last = {}, 0
  for line in gmatch(traceback("", 2), "[^\n]+") do
    lines[#lines + 1] = line
    if find(line, shown, 1, true) then last = #lines end
  end
  return { message, concat(lines, "\n", 1, last) }
end

local function words(value)
  if type(value) ~= "table" then return tostring(value) end
  local found = {}
  for key, item in next, value do
    found[#found + 1] = type(key) == "number" and tostring(item) or tostring(key) .. "=" .. tostring(item)
  end
  sort(found)
  return concat(found, ", ")
end

-- `true` or nil means success; `false`, or nil with a message, failure.  Any other value is the message of a success.
local function judge(fine, value, message)
  if not fine then return false, value[1], value[2] end
  if value == false or (value == nil and message ~= nil) then return false, message and tostring(message) or "", "" end
  return true, (value == nil or value == true) and "" or words(value), ""
end

-- Runs the chunk, within `seconds` if given; returns the values of xpcall, and whether the time was up.
local function run(chunk, name, seconds)
  if seconds then
    compiler.off() -- hooks do not interrupt compiled code
    sandbox.watch(seconds)
  end
  local fine, failure = xpcall(function() chunk(name) end, trace)
  local late = sandbox.unwatch()
  compiler.on()
  return fine, failure, late
end

local functions = {}

function functions.evaluate(text, path, name, seconds)
  shown = sub(path, -50)
  local chunk, problem = sandbox.load(text, "@" .. path)
  if not chunk then return false, problem, "" end
  local fine, failure, late = run(chunk, name, seconds)
  if late then return false, "out of time", "" end
  if fine then return true, "", "" end
  return false, failure[1], failure[2]
end

function functions.call(module, wanted)
  local called
  for _, found in next, sandbox.modules() do
    if found.name == module then called = found.store[wanted] end
  end
  if type(called) ~= "function" then return false, "there is no function " .. wanted, "" end
  -- changed in place, because a file may have this table in a local
  for key, value in next, more.os do sandbox.base.os[key] = value end
  more.os = nil
  for key, value in next, more do sandbox.base[key] = value end
  sandbox.open(libraries)
  return judge(xpcall(called, trace))
end

return functions
