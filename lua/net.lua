-- net: interfaces, addresses and routes.  Every function returns true or a value, or nil, a message and the errno.

local kernel, python = ...
local find, gmatch, match = string.find, string.gmatch, string.match
local next, tonumber, tostring = next, tonumber, tostring

local MAIN_TABLE, MAX = 254, 2 ^ 32 - 1

local function word(name, number, value)
  local text = kernel.string(name, number, value)
  if text == "" or find(text, "[%z%s]") then kernel.bad(name, number, "a word expected, without blanks and not empty") end
  return text
end

local function text(name, number, value)
  value = kernel.string(name, number, value)
  if find(value, "%z") then kernel.bad(name, number, "text expected, without NUL") end
  return value
end

local function optional(check, name, number, value, ...)
  if value ~= nil then return check(name, number, value, ...) end
  return nil -- an explicit nil, because no value at all would drop the last argument of a call
end

-- Returns the options of a table; unknown ones are errors.
local function options(name, number, value, known)
  if value == nil then return {} end
  for key in next, kernel.table(name, number, value) do
    if not known[key] then kernel.bad(name, number, "there is no option '" .. tostring(key) .. "'") end
  end
  return value
end

-- A list from Python, with a NUL behind each item.
local function items(listed, make)
  local found = {}
  for item in gmatch(listed, "(%Z*)%z") do found[#found + 1] = make and make(item) or item end
  return found
end

local net = {}

-- Functions whose only argument is the name of an interface
for _, name in next, { "up", "down", "delete" } do
  net[name] = function(link, ...)
    kernel.no_more(name, 1, ...)
    return python[name](word(name, 1, link))
  end
end

function net.links(...)
  kernel.no_more("links", 0, ...)
  local listed, message, number = python.links()
  if not listed then return listed, message, number end
  return items(listed)
end

function net.link(link, ...)
  kernel.no_more("link", 1, ...)
  local name, index, kind, up, carrier, mtu, mac, alias = python.link(word("link", 1, link))
  if not name then return name, index, kind end
  return { name = name, index = index, kind = kind, up = up, carrier = carrier, mtu = mtu, mac = mac, alias = alias }
end

function net.set(link, given, ...)
  kernel.no_more("set", 2, ...)
  local values = options("set", 2, kernel.table("set", 2, given), { mtu = true, mac = true, alias = true, name = true })
  return python.set(
    word("set", 1, link),
    optional(kernel.integer, "set", 2, values.mtu, 0, MAX),
    optional(word, "set", 2, values.mac),
    optional(text, "set", 2, values.alias),
    optional(word, "set", 2, values.name)
  )
end

function net.add(link, kind, given, ...)
  kernel.no_more("add", 3, ...)
  local values = options("add", 3, given, { peer = true, link = true, id = true })
  return python.add(
    word("add", 1, link),
    word("add", 2, kind),
    optional(word, "add", 3, values.peer),
    optional(word, "add", 3, values.link),
    optional(kernel.integer, "add", 3, values.id, 0, 4094)
  )
end

function net.addresses(link, ...)
  kernel.no_more("addresses", 1, ...)
  local listed, message, number = python.addresses(word("addresses", 1, link))
  if not listed then return listed, message, number end
  return items(listed)
end

for _, name in next, { "add_address", "delete_address" } do
  net[name] = function(link, address, ...)
    kernel.no_more(name, 2, ...)
    return python[name](word(name, 1, link), word(name, 2, address))
  end
end

local function route(item)
  local to, via, link, metric = match(item, "^(%S*)\t(%S*)\t(%S*)\t(%d+)$")
  return { to = to, via = via ~= "" and via or nil, link = link ~= "" and link or nil, metric = tonumber(metric) }
end

function net.routes(number, ...)
  kernel.no_more("routes", 1, ...)
  local listed, message, errno = python.routes(kernel.integer("routes", 1, number or MAIN_TABLE, 1, MAX))
  if not listed then return listed, message, errno end
  return items(listed, route)
end

local function way(name, given, known)
  local values = options(name, 2, given, known)
  return values, optional(word, name, 2, values.via), optional(word, name, 2, values.link),
    optional(kernel.integer, name, 2, values.metric, 0, MAX), optional(kernel.integer, name, 2, values.table, 1, MAX)
end

function net.add_route(to, given, ...)
  kernel.no_more("add_route", 2, ...)
  local known = { via = true, link = true, metric = true, table = true, source = true, onlink = true }
  local values, via, link, metric, number = way("add_route", given, known)
  local source = optional(word, "add_route", 2, values.source)
  return python.add_route(word("add_route", 1, to), via, link, metric, number, source, values.onlink and true or false)
end

function net.delete_route(to, given, ...)
  kernel.no_more("delete_route", 2, ...)
  local _, via, link, metric, number = way("delete_route", given, { via = true, link = true, metric = true, table = true })
  return python.delete_route(word("delete_route", 1, to), via, link, metric, number)
end

return { net = net }
