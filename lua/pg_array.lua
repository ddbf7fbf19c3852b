-- Values in the syntax of PostgreSQL: numbers, and arrays such as {"text",NULL,{…}}; see "Array Input and Output
-- Syntax" in its manual.

local kernel = ...
local concat, find, floor, format, gsub = table.concat, string.find, math.floor, string.format, string.gsub
local huge, lower, match, maxn, next = math.huge, string.lower, string.match, table.maxn, next
local sub, tonumber, tostring, type = string.sub, tonumber, tostring, type

local MOST_DIMENSIONS = 6 -- PostgreSQL's MAXDIM

-- Numbers in the syntax of PostgreSQL: integers without point or exponent, others with the fewest digits that
-- represent the same number.
local function number_text(number)
  if number ~= number then return "NaN" end
  if number == huge then return "Infinity" end
  if number == -huge then return "-Infinity" end
  if number == floor(number) then return format("%.0f", number) end
  for digits = 15, 16 do
    local text = format("%." .. digits .. "g", number)
    if tonumber(text) == number then return text end
  end
  return format("%.17g", number)
end

-- The length of a list; its holes are NULL.  A long table that is mostly holes is not a list.
local function length(name, number, list)
  local count = 0
  for key in next, list do
    count = count + 1
    if type(key) ~= "number" or key < 1 or key ~= floor(key) then
      kernel.bad(name, number, "array expected, got a table with the key '" .. tostring(key) .. "'")
    end
  end
  local last = maxn(list)
  if last > 1000 and last > 2 * count then
    kernel.bad(name, number, format("array expected, got a table with the last key %.0f and %d values", last, count))
  end
  return last
end

local encode

local function element(name, value, depth)
  local kind = type(value)
  if kind == "nil" then return "NULL" end
  if kind == "number" then return number_text(value) end
  if kind == "boolean" then return value and "1" or "0" end
  if kind == "string" then return '"' .. gsub(value, '[\\"]', "\\%0") .. '"' end
  if kind == "table" then return encode(name, value, depth + 1) end
  kernel.bad(name, 1, "array of nil, boolean, number, string or array expected, got " .. kind .. " in it")
end

function encode(name, list, depth)
  depth = depth or 1
  if depth > MOST_DIMENSIONS then kernel.bad(name, 1, "at most " .. MOST_DIMENSIONS .. " dimensions expected") end
  local texts = {}
  for i = 1, length(name, 1, list) do texts[i] = element(name, list[i], depth) end
  return "{" .. concat(texts, ",") .. "}"
end

-- Each parser gets the text and a position, and returns a value and the position behind it, or nothing if there is no
-- such value.
local list

local function quoted(text, at)
  local pieces = {}
  while true do
    local _, last, piece, stop = find(text, '^([^"\\]*)(["\\])', at)
    if not last then return end
    pieces[#pieces + 1] = piece
    if stop == '"' then return concat(pieces), last + 1 end
    pieces[#pieces + 1] = sub(text, last + 1, last + 1)
    at = last + 2
  end
end

local function item(text, at)
  local first = sub(text, at, at)
  if first == "{" then return list(text, at + 1) end
  if first == '"' then return quoted(text, at + 1) end
  local word, last = match(text, "^([^,{}\"]+)()", at)
  if not word then return end
  if lower(word) == "null" then return nil, last end
  return gsub(word, "\\(.)", "%1"), last
end

function list(text, at)
  local values = {}
  if sub(text, at, at) == "}" then return values, at + 1 end
  for i = 1, huge do
    local value, last = item(text, at)
    if not last then return end
    values[i] = value
    local separator = sub(text, last, last)
    if separator == "}" then return values, last + 1 end
    if separator ~= "," then return end
    at = last + 1
  end
end

local function decode(name, text)
  if text == "" then return {} end
  local begin = match(text, "^%[[%[%]%d:%-+]*%]=(){") or 1 -- bounds other than 1, as in [0:1]={a,b}
  if sub(text, begin, begin) == "{" then
    local values, last = list(text, begin + 1)
    if values and last == #text + 1 then return values end
  end
  kernel.bad(name, 1, format("array of PostgreSQL expected, got %q", text))
end

kernel.pg_array = { number = number_text, length = length, encode = encode, decode = decode }

return {}
