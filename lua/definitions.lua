-- Runs one definition file.  The chunk gets the values of `sandbox.lua` and `reached.lua`.  It returns a function
-- (text, seconds, name), in which `name` is the value of `...` in the file, and which returns one string of JSON:
-- {"error": message, "line": line}, or {"globals": [[name, line, value, before], …], "netns": as globals, "modules":
-- [{"name", "line", "keys": as globals, "functions": [[name, line, before], …], "depends": [[line, name], …],
-- "reached"}, …], "prints": …, "undefined": …, "reads_clock": boolean}.

local sandbox, reached = ...
local DEPTH, COUNT = 24, 200000
local CHUNK = "=\1" -- a source name that no message contains by accident; messages read "\1:LINE: …"

local error, next, pcall, rawget, tostring, type, xpcall = error, next, pcall, rawget, tostring, type, xpcall
local concat, floor = table.concat, math.floor
local find, format, gsub, sub = string.find, string.format, string.gsub, string.sub

local made, running = sandbox.made, sandbox.running
local encoding -- the line of the global whose value becomes JSON

-- Values as JSON.  A table becomes an array or an object.  The table of a constructor, and a value that JSON lacks,
-- become an object with the key "\0", which no other object has.
local out, count, above = {}, 0, {}
local encode

local function put(text) out[#out + 1] = text end

local function put_string(text)
  if find(text, '["\\]') then text = gsub(text, '["\\]', "\\%0") end
  put('"' .. text .. '"')
end

local function put_number(number)
  if number ~= number then put("NaN")
  elseif number == 1 / 0 then put("Infinity")
  elseif number == -1 / 0 then put("-Infinity")
  elseif floor(number) == number and number > -2 ^ 53 and number < 2 ^ 53 then put(format("%.0f", number))
  else put(format("%.17g", number)) end
end

local function put_odd(what)
  put('{"\0":"odd","what":"' .. what .. '"}')
end

local function put_list(list, length, depth)
  put("[")
  for i = 1, length do
    if i > 1 then put(",") end
    encode(rawget(list, i), depth)
  end
  put("]")
end

local function put_made(handle, depth)
  put('{"\0":"' .. handle.kind .. '","line":' .. format("%d", handle.line) .. ',"args":')
  put_list(handle, handle.count, depth)
  put("}")
end

local function put_object(object, depth)
  local comma = ""
  put("{")
  for key, value in next, object do
    put(comma)
    put_string(key)
    put(":")
    encode(value, depth)
    comma = ","
  end
  put("}")
end

local function put_pairs(mixed, depth)
  local comma = ""
  put('{"\0":"pairs","pairs":[')
  for key, value in next, mixed do
    put(comma .. "[")
    encode(key, depth)
    put(",")
    encode(value, depth)
    put("]")
    comma = ","
  end
  put("]}")
end

local function shape(values)
  local total, named, plain = 0, 0, true
  for key in next, values do
    total = total + 1
    if type(key) == "string" then
      named = named + 1
      plain = plain and not find(key, "%z")
    end
  end
  if total > 0 and named == total and plain then return "object", total end
  for i = 1, total do
    if rawget(values, i) == nil then return "pairs", total end
  end
  return "list", total
end

local function put_table(values, depth)
  if above[values] then return put_odd("a table that holds itself") end
  if depth > DEPTH then return put_odd("a table nested too deep") end
  above[values] = true
  local handle = made[values]
  if handle then
    put_made(handle, depth + 1)
  else
    local kind, total = shape(values)
    if kind == "list" then put_list(values, total, depth + 1)
    elseif kind == "object" then put_object(values, depth + 1)
    else put_pairs(values, depth + 1) end
  end
  above[values] = nil
end

function encode(value, depth)
  count = count + 1
  if count > COUNT then error("more than " .. COUNT .. " values", 0) end
  local kind = type(value)
  if kind == "string" then put_string(value)
  elseif kind == "number" then put_number(value)
  elseif kind == "boolean" then put(value and "true" or "false")
  elseif kind == "nil" then put("null")
  elseif kind == "table" then put_table(value, depth)
  else put_odd("a " .. kind) end
end

local function put_entries(found)
  put("[")
  for i = 1, #found do
    if i > 1 then put(",") end
    encoding = found[i][2]
    encode(found[i], 1)
  end
  encoding = nil
  put("]")
end

local function put_named(name, found)
  put(',"' .. name .. '":')
  encode(found, 0)
end

local function wanted(name)
  return type(name) ~= "string" or sub(name, 1, 1) ~= "_" or name == "_DEFAULT" or name == "_SUPERVISOR"
end

local function any() return true end

-- The assignments of a scope to `meant` names, in order.  Functions go to the list `apart`, if there is one.
local function collect(scope, meant, apart)
  local found = {}
  for _, name in next, scope.order do
    local value = scope.store[name]
    local line, before = scope.where[name], scope.twice[name] or 0
    if value ~= nil and meant(name) then
      if apart and type(value) == "function" then
        apart[#apart + 1] = { name, line, before }
      else
        found[#found + 1] = { name, line, value, before }
      end
    end
  end
  return found
end

local function put_module(module)
  local functions = {}
  local keys = collect(module, wanted, functions)
  put("{")
  put('"name":')
  put_string(module.name)
  put(',"line":' .. format("%d", module.line) .. ',"keys":')
  put_entries(keys)
  put_named("functions", functions)
  put_named("depends", module.depends)
  put(',"reached":')
  put_string(#functions > 0 and reached(module, CHUNK) or "")
  put("}")
end

local function put_modules(modules)
  put("[")
  for i = 1, #modules do
    if i > 1 then put(",") end
    put_module(modules[i])
  end
  put("]")
end

local function put_all()
  put('{"globals":')
  put_entries(collect(sandbox.file(), wanted))
  put(',"netns":')
  put_entries(collect(sandbox.netns(), any))
  put(',"modules":')
  put_modules(sandbox.modules())
  put_named("prints", sandbox.prints)
  put_named("undefined", sandbox.undefined)
  put(',"reads_clock":' .. tostring(sandbox.reads_clock()))
  put("}")
end

local function failure(message, line, overtime)
  out, count, above = {}, 0, {}
  if type(message) ~= "string" then
    message = "an error that is not a string but a " .. type(message)
  end
  encode({ error = sub(message, 1, 2000), line = line or 0, overtime = overtime or false }, 1)
  return concat(out)
end

local function run(text, seconds, name)
  local chunk, message, where = sandbox.load(text, CHUNK, true)
  if not chunk then return failure(message, where) end
  local line
  sandbox.watch(seconds)
  local fine, problem = xpcall(function() chunk(name) end, function(cause)
    line = running()
    return cause
  end)
  local overtime, seen_at = sandbox.unwatch()
  if overtime then return failure("took too long", overtime, true) end
  if not fine then return failure(problem, line or problem == "stack overflow" and seen_at) end
  fine, problem = pcall(put_all)
  if not fine then return failure(problem, encoding) end
  return concat(out)
end

jit.off()
jit.flush()
sandbox.seal()
return run
