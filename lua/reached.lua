-- The dependencies of the functions of a module, as one string: their bytecode, the values of their upvalues,
-- and the globals that they name, with everything reachable from these.  Equal strings mean equal functions,
-- whatever their place.  The chunk gets the sandbox before it is sealed.  It returns a function (module,
-- source) that returns the string, or nil if a function may reach more than it names.  `source` is the name
-- of the file's chunk.

local sandbox = ...
local MOST, LONGEST = 20000, 4194304 -- values and bytes of all modules together

local funcbc, funck = require("jit.util").funcbc, require("jit.util").funck
local band, rshift = bit.band, bit.rshift
local getfenv, getinfo, getmetatable = debug.getfenv, debug.getinfo, debug.getmetatable
local getupvalue, upvalueid, dump = debug.getupvalue, debug.upvalueid, string.dump
local error, next, pcall, rawget, tostring, type = error, next, pcall, rawget, tostring, type
local concat, format, sort = table.concat, string.format, table.sort

local base, made, globals = sandbox.base, sandbox.made, sandbox.base._G
local DYNAMIC = { debug = true, loadstring = true } -- they let a function reach values that it does not name

local READS_GLOBAL = band(funcbc(function() return anything end, 1), 0xff) -- the opcode of such a read

-- The predefined tables and functions by name, and the fields and the metatable of each table before the file runs.
local known, pristine = {}, {}

for name, value in next, base do
  if value ~= globals and value ~= base.netns and (type(value) == "table" or type(value) == "function") then
    known[value] = name
    if type(value) == "table" then
      local fields = {}
      for field, member in next, value do fields[field] = member end
      pristine[value] = { fields = fields, metatable = getmetatable(value) }
      if not getmetatable(value) then
        for field, member in next, fields do known[member] = name .. "." .. field end
      end
    end
  end
end

-- Whether the file has changed a predefined table.  Any function may depend on that: `text:trim()` names no library.
local function is_changed()
  for given, was in next, pristine do
    if getmetatable(given) ~= was.metatable then return true end
    for field, member in next, given do
      if was.fields[field] ~= member then return true end
    end
    for field in next, was.fields do
      if rawget(given, field) == nil then return true end
    end
  end
  return false
end

-- Tables that lead to everything, such as `_G`; modules by their environments; globals of the file.  They are found for
-- the first function, because many files have none.
local everything, modules, store, changed

local function find_all()
  everything, modules, store = { [globals] = true, [base.netns] = true }, {}, sandbox.file().store
  for _, module in next, sandbox.modules() do
    modules[module.env], everything[module.env] = module, true
  end
  changed = is_changed()
end

local values, bytes = 0, 0
local out, ids, count, source
local put_value

local function put(text)
  bytes = bytes + #text
  if bytes > LONGEST then error("too long", 0) end
  out[#out + 1] = text
end

local function put_text(kind, text)
  put(kind .. #text .. ":")
  put(text)
end

local function put_number(kind, number) put_text(kind, format("%.17g", number)) end

-- Puts the number of a value; returns whether the value is new.
local function put_id(value)
  local id = ids[value]
  if not id then
    count = count + 1
    ids[value] = count
  end
  put_number("@", ids[value])
  return not id
end

local function count_value()
  values = values + 1
  if values > MOST then error("too much", 0) end
end

local function sorted(set)
  local list = {}
  for name in next, set do list[#list + 1] = name end
  sort(list)
  return list
end

-- The names of the globals that a function, or one inside it, reads.
local function names_in(code, found)
  local at, ins = 1, funcbc(code, 1)
  while ins do
    if band(ins, 0xff) == READS_GLOBAL then found[funck(code, -rshift(ins, 16) - 1)] = true end
    at = at + 1
    ins = funcbc(code, at)
  end
  local number, constant = -1, funck(code, -1)
  while constant ~= nil do
    if type(constant) == "proto" then names_in(constant, found) end
    number = number - 1
    constant = funck(code, number)
  end
  return found
end

local function global(env, name)
  if DYNAMIC[name] then error("dynamic", 0) end
  local value
  if env ~= globals then
    local module = modules[env]
    value = module.store[name]
    if value == nil then value = module.own[name] end
    if value ~= nil or not module.sees_all then return value end
  end
  value = store[name]
  if value == nil then value = base[name] end
  return value
end

local function put_function(called)
  if getinfo(called, "S").source ~= source then error("not of the file", 0) end
  local env = getfenv(called)
  put_text("f", dump(called, "sd"))
  put_text("e", env == globals and "" or modules[env].name) -- the target of its assignments
  local at = 1
  local name, value = getupvalue(called, at)
  while name do
    if put_id(upvalueid(called, at)) then put_value(value) end -- functions may share an upvalue
    at = at + 1
    name, value = getupvalue(called, at)
  end
  for _, read in next, sorted(names_in(called, {})) do
    put_text("g", read)
    put_value(global(env, read))
  end
end

local function put_table(fields)
  local handle = made[fields]
  if handle then
    if next(fields) ~= nil then error("fields in a handle", 0) end
    put_text("m", handle.kind)
    for i = 1, handle.count do put_value(handle[i]) end
    return
  end
  local keys = {}
  for key in next, fields do
    local kind = type(key)
    if kind ~= "string" and kind ~= "number" and kind ~= "boolean" then error("a key without an order", 0) end
    count_value()
    keys[kind .. (kind == "number" and format("%.17g", key) or tostring(key))] = key
  end
  put("{")
  for _, name in next, sorted(keys) do
    put_value(keys[name])
    put_value(rawget(fields, keys[name]))
  end
  put("}")
  put_value(getmetatable(fields))
end

function put_value(value)
  count_value()
  if everything[value] then error("too much", 0) end
  local kind = type(value)
  if kind == "string" then put_text("s", value)
  elseif kind == "number" then put_number("n", value)
  elseif kind == "nil" or kind == "boolean" then put(tostring(value))
  elseif known[value] then put_text("k", known[value])
  elseif kind ~= "function" and kind ~= "table" then error("a " .. kind, 0)
  elseif put_id(value) then
    if kind == "function" then put_function(value) else put_table(value) end
  end
end

local function put_functions(module)
  local functions = {}
  for name, value in next, module.store do
    if type(value) == "function" then functions[name] = true end
  end
  for _, name in next, sorted(functions) do
    put_text("s", tostring(name))
    put_value(module.store[name])
  end
end

return function(module, name)
  out, ids, count, source = {}, {}, 0, name
  if not modules then find_all() end
  return not changed and pcall(put_functions, module) and concat(out) or nil
end
