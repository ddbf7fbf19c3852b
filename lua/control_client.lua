-- control_client:new(address): datagrams of commands.  All integers are big endian: u32 magic, then for each command
-- u16 length, u16 command, payload, zero padding to a multiple of 4.

local kernel, python = ...
local char, concat, find, floor, rep, select = string.char, table.concat, string.find, math.floor,
  string.rep, select

local MAGIC = "\99\4\97\1" -- 0x63046101
local EXPIRES = 3600 -- seconds

-- Commands whose payload is a name or a tag; each argument becomes one command
local NAMED = {
  fade_children = 8,
  flush_filter_cache = 12,
  discard_session = 14,
  flush_http_cache = 15,
  terminate_children = 16,
  disconnect_database = 20,
  reset_limiter = 22,
}
-- Commands whose payload is the address of a client; they expire
local CLIENT = { reject_client = 23, tarpit_client = 24 }
local CANCEL_JOB = 25

local builder_class, client_class
local builder, client = {}, {}

local function u16(number) return char(floor(number / 256), number % 256) end
local function u32(number) return u16(floor(number / 65536)) .. u16(number % 65536) end

local function add(state, name, number, command, payload)
  if #payload > 65535 then kernel.bad(name, number, "at most 65535 bytes expected, got " .. #payload) end
  state[#state + 1] = u16(#payload) .. u16(command) .. payload .. rep("\0", -#payload % 4)
end

for name, command in next, NAMED do
  builder[name] = function(self, ...)
    local state = kernel.self(builder_class, name, self)
    kernel.string(name, 1, (...))
    for i = 1, select("#", ...) do add(state, name, i, command, kernel.string(name, i, (select(i, ...)))) end
    return self
  end
end

for name, command in next, CLIENT do
  builder[name] = function(self, address, seconds, ...)
    local state = kernel.self(builder_class, name, self)
    address = kernel.string(name, 1, address)
    seconds = seconds == nil and EXPIRES or kernel.integer(name, 2, seconds, 0, 2 ^ 32 - 1)
    kernel.no_more(name, 2, ...)
    add(state, name, 1, command, u32(seconds) .. address)
    return self
  end
end

function builder.cancel_job(self, partition, job, ...)
  local state = kernel.self(builder_class, "cancel_job", self)
  partition = kernel.string("cancel_job", 1, partition)
  job = kernel.string("cancel_job", 2, job)
  kernel.no_more("cancel_job", 2, ...)
  if find(partition, "\0", 1, true) then kernel.bad("cancel_job", 1, "a string without NUL expected") end
  add(state, "cancel_job", 1, CANCEL_JOB, partition .. "\0" .. job)
  return self
end

function client.build(self, ...)
  kernel.self(client_class, "build", self)
  kernel.no_more("build", 0, ...)
  return kernel.object(builder_class, {})
end

function client.send(self, commands, ...)
  local state = kernel.self(client_class, "send", self)
  local parts = kernel.state(builder_class, commands)
  if not parts then kernel.expected("send", 1, "control builder", commands) end
  kernel.no_more("send", 1, ...)
  local datagram = MAGIC .. concat(parts)
  local sent, problem = python.send_nowait(state.handle, datagram)
  if sent == nil then return nil, problem end
  if sent then return true end
  return python.send(state.handle, datagram)
end

builder_class = kernel.class("control builder", builder)
client_class = kernel.class("control client", client)

local control_client = {}

function control_client:new(address, ...)
  address = kernel.address("new", 1, address)
  kernel.no_more("new", 1, ...)
  local handle, problem = python.connect(address)
  if not handle then return nil, problem end
  return kernel.object(client_class, { handle = handle })
end

return { control_client = control_client }
