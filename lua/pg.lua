-- pg: PostgreSQL.  pg:new(conninfo [, schema]), db:execute(sql [, params]), db:listen(channel, callback),
-- result:fetch([row [, mode]]), pg:encode_array(list), pg:decode_array(text).

local kernel, python = ...
local byte, format, sub, type, unpack = string.byte, string.format, string.sub, type, unpack
local arrays = kernel.pg_array

local connection_class, result_class

-- Results: the lengths and the strings of `workers.lua.pg_result`.

local NULL = 2 ^ 32 - 1

local function next_cell(state)
  local index = state.cell * 4
  local a, b, c, d = byte(state.lengths, index + 1, index + 4)
  local length = a + b * 256 + c * 65536 + d * 16777216
  state.cell = state.cell + 1
  if length == NULL then return nil end
  local at = state.at
  state.at = at + length
  return sub(state.strings, at + 1, state.at)
end

local function new_result(columns, rows, lengths, strings)
  if not columns then return nil, rows end
  local state = { columns = columns, rows = rows, lengths = lengths, strings = strings, cell = 0, at = 0, names = {} }
  for column = 1, columns do state.names[column] = next_cell(state) end
  return kernel.object(result_class, state)
end

local MODES = { "a", "n" }
local result = {}

function result.fetch(self, row, mode, ...)
  local state = kernel.self(result_class, "fetch", self)
  row = row == nil and {} or kernel.table("fetch", 1, row)
  mode = mode == nil and "a" or kernel.choice("fetch", 2, mode, MODES)
  kernel.no_more("fetch", 2, ...)
  if state.rows == 0 then return nil end
  state.rows = state.rows - 1
  local names = state.names
  for column = 1, state.columns do
    row[mode == "a" and names[column] or column] = next_cell(state)
  end
  return row
end

result_class = kernel.class("pg result", result)

local function parameter(value, index)
  local kind = type(value)
  if kind == "string" or kind == "nil" then return value end
  if kind == "number" then return arrays.number(value) end
  if kind == "boolean" then return value and "1" or "0" end
  kernel.bad("execute", 2, format("nil, boolean, number or string expected as parameter %d, got %s", index, kind))
end

local MOST_PARAMETERS = 7000 -- maximal number of arguments of a call
local connection = {}

function connection.execute(self, sql, params, ...)
  local state = kernel.self(connection_class, "execute", self)
  sql = kernel.string("execute", 1, sql)
  if params ~= nil then kernel.table("execute", 2, params) end
  kernel.no_more("execute", 2, ...)
  if params == nil then return new_result(python.execute(state.handle, sql, false)) end
  local length = arrays.length("execute", 2, params)
  if length > MOST_PARAMETERS then
    kernel.bad("execute", 2, format("at most %d parameters expected, got %d", MOST_PARAMETERS, length))
  end
  local texts = {}
  for i = 1, length do texts[i] = parameter(params[i], i) end
  return new_result(python.execute(state.handle, sql, true, unpack(texts, 1, length)))
end

function connection.listen(self, channel, callback, ...)
  local state = kernel.self(connection_class, "listen", self)
  channel = kernel.string("listen", 1, channel)
  kernel.callback("listen", 2, callback)
  kernel.no_more("listen", 2, ...)
  python.listen(state.handle, channel, kernel.keep(callback))
end

connection_class = kernel.class("pg connection", connection)

local pg = {}

function pg:new(conninfo, schema, ...)
  conninfo = kernel.string("new", 1, conninfo)
  if schema ~= nil then schema = kernel.string("new", 2, schema) end
  kernel.no_more("new", 2, ...)
  return kernel.object(connection_class, { handle = python.new(conninfo, schema) })
end

function pg:encode_array(list, ...)
  kernel.table("encode_array", 1, list)
  kernel.no_more("encode_array", 1, ...)
  return arrays.encode("encode_array", list)
end

function pg:decode_array(text, ...)
  text = kernel.string("decode_array", 1, text)
  kernel.no_more("decode_array", 1, ...)
  return arrays.decode("decode_array", text)
end

return { pg = pg }
