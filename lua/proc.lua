-- proc: processes, and the user and limits of this one.  Functions return a value, or nil, a message and an errno.

local kernel, python = ...
local find, format, gmatch = string.find, string.format, string.gmatch
local concat, next, setmetatable, tonumber, tostring, type = table.concat, next, setmetatable, tonumber, tostring, type

local stderr = io.stderr

local NUMBER = 2 ^ 31 - 1
local ID = 2 ^ 32 - 2

local function pid(name, number, value) return kernel.integer(name, number, value, -NUMBER, NUMBER) end

local function text(name, number, value)
  value = kernel.string(name, number, value)
  if find(value, "%z") then kernel.bad(name, number, "text without NUL expected") end
  return value
end

-- Joins a list of words, with a NUL behind each.
local function words(name, number, list)
  local found = {}
  for i = 1, #kernel.table(name, number, list) do found[i] = text(name, number, list[i]) .. "\0" end
  return concat(found)
end

local function variables(name, number, values)
  if values == nil then return nil end
  local found = {}
  for key, value in next, kernel.table(name, number, values) do
    if type(key) ~= "string" or key == "" or find(key, "=", 1, true) then
      kernel.bad(name, number, "names of variables expected, got " .. tostring(key))
    end
    found[#found + 1] = key .. "=" .. text(name, number, value) .. "\0"
  end
  return concat(found)
end

local proc = {}

local FIELDS = { "pid", "ppid", "uid", "gid", "state", "memory", "cpu", "name", "command" }
local NUMBERS = { pid = true, ppid = true, uid = true, gid = true, memory = true, cpu = true }

function proc.ps(...)
  kernel.no_more("ps", 0, ...)
  local rows, message, number = python.ps()
  if not rows then return nil, message, number end
  local found, row, field = {}, {}, 1
  for value in gmatch(rows, "([^%z]*)%z") do
    local name = FIELDS[field]
    row[name] = NUMBERS[name] and tonumber(value) or value
    field = field + 1
    if field > #FIELDS then
      found[#found + 1], row, field = row, {}, 1
    end
  end
  return found
end

function proc.kill(whom, signal, ...)
  kernel.no_more("kill", 2, ...)
  if signal == nil then signal = "TERM" end
  if type(signal) == "number" then
    signal = kernel.integer("kill", 2, signal, 0, 64)
  else
    signal = text("kill", 2, signal)
  end
  return python.kill(pid("kill", 1, whom), signal)
end

local RUN = { input = true, env = true, cwd = true, timeout = true, follow = true }

-- proc.run(program, argument, …) or proc.run({ program, argument, …, input = …, env = …, cwd = …, timeout = … }).
function proc.run(program, ...)
  local list = type(program) == "table" and program or { program, ... }
  if list == program then kernel.no_more("run", 1, ...) end
  if list[1] == nil then kernel.bad("run", 1, "a program expected") end
  local given = list == program and program or {}
  for key in next, given do
    if type(key) == "string" and not RUN[key] then kernel.bad("run", 1, "there is no option '" .. key .. "'") end
  end
  local timeout = given.timeout
  if timeout ~= nil and not (type(timeout) == "number" and timeout > 0 and timeout <= NUMBER) then
    kernel.bad("run", 1, "timeout: a number of seconds expected")
  end
  local input = given.input == nil and "" or kernel.string("run", 1, given.input)
  local folder = given.cwd ~= nil and text("run", 1, given.cwd) or nil
  local follow = given.follow and true or false
  return python.run(words("run", 1, list), input, variables("run", 1, given.env), folder, timeout, follow)
end

for _, name in next, { "getpid", "getppid", "getuid", "getgid" } do
  proc[name] = function(...)
    kernel.no_more(name, 0, ...)
    return python[name]()
  end
end

-- One id for all three, or the real, the effective and the saved id.
for _, name in next, { "setuid", "setgid" } do
  proc[name] = function(real, effective, saved, ...)
    kernel.no_more(name, 3, ...)
    real = kernel.integer(name, 1, real, 0, ID)
    effective = effective == nil and real or kernel.integer(name, 2, effective, 0, ID)
    saved = saved == nil and effective or kernel.integer(name, 3, saved, 0, ID)
    return python[name](real, effective, saved)
  end
end

function proc.fork(...)
  kernel.no_more("fork", 0, ...)
  return python.fork()
end

function proc.wait(whom, how, ...)
  kernel.no_more("wait", 2, ...)
  if how ~= nil then kernel.choice("wait", 2, how, { "nohang" }) end
  return python.wait(whom == nil and -1 or pid("wait", 1, whom), how ~= nil)
end

function proc.exec(program, arguments, environment, ...)
  kernel.no_more("exec", 3, ...)
  program = text("exec", 1, program)
  return python.exec(program, arguments == nil and "" or words("exec", 2, arguments), variables("exec", 3, environment))
end

-- Also accepts the results of a failed function: proc.exit(proc.exec(…)) reports its error.
function proc.exit(status, message, ...)
  if status == nil and message ~= nil then
    stderr:write(tostring(message), "\n")
    status = false
  else
    kernel.no_more("exit", 1, message, ...)
  end
  if status == nil or status == true then status = 0 elseif status == false then status = 1 end
  return python.exit(kernel.integer("exit", 1, status, 0, 255))
end

function proc.uname(...)
  kernel.no_more("uname", 0, ...)
  local system, node, release, version, machine = python.uname()
  return { sysname = system, nodename = node, release = release, version = version, machine = machine }
end

local function limits(hard)
  return setmetatable({}, {
    __index = function(_, name) return python.limit(text("limits", 1, name), hard) end,
    __newindex = function(_, name, value)
      if type(value) ~= "number" and type(value) ~= "string" then
        kernel.raise(format("cannot set limit '%s': a number or text expected, got %s", tostring(name), type(value)))
      end
      python.set_limit(text("limits", 1, name), hard, value)
    end,
    __metatable = false,
  })
end

proc.limits = { soft = limits(false), hard = limits(true) }

return { proc = proc }
