-- socket:connect(address [, {type = …}]): sockets to send on.

local kernel, python = ...
local next, sub, tostring = next, string.sub, tostring

local KINDS = { "stream", "dgram", "seqpacket" }
local class
local methods = {}

-- A send that has begun is completed, so that no script has to continue a partial send on a stream.
function methods.send(self, data, first, last, ...)
  local state = kernel.self(class, "send", self)
  data = kernel.string("send", 1, data)
  first = first == nil and 1 or kernel.integer("send", 2, first, -2 ^ 53, 2 ^ 53)
  last = last == nil and -1 or kernel.integer("send", 3, last, -2 ^ 53, 2 ^ 53)
  kernel.no_more("send", 3, ...)
  data = sub(data, first, last)
  if data == "" then return 0 end
  local sent, problem = python.send_nowait(state.handle, data)
  if not sent then return nil, problem end
  if sent == #data then return sent end
  return python.send(state.handle, data, sent)
end

function methods.close(self, ...)
  local state = kernel.self(class, "close", self)
  kernel.no_more("close", 0, ...)
  python.close(state.handle)
end

class = kernel.class("socket", methods)

local function kind_of(options)
  local kind = "stream"
  for key, value in next, kernel.table("connect", 2, options) do
    if key ~= "type" then kernel.bad("connect", 2, "option 'type' expected, got '" .. tostring(key) .. "'") end
    kind = kernel.choice("connect", 2, value, KINDS)
  end
  return kind
end

local socket = {}

function socket:connect(address, options, ...)
  address = kernel.address("connect", 1, address)
  local kind = options == nil and "stream" or kind_of(options)
  kernel.no_more("connect", 2, ...)
  local handle, problem = python.connect(address, kind)
  if not handle then return nil, problem end
  return kernel.object(class, { handle = handle })
end

return { socket = socket }
