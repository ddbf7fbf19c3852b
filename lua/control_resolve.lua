-- control_resolve(text) returns an address object.

local kernel, python = ...

local address = kernel.class("address", {}, function(state) return python.show(state.handle) end)

-- Returns an address in the form that Python's functions accept: text, or the handle of an address object.
function kernel.address(name, number, value)
  local state = kernel.state(address, value)
  if state then return state.handle end
  if type(value) == "string" then return value end
  kernel.expected(name, number, "string or address", value)
end

local function control_resolve(text, ...)
  text = kernel.string("control_resolve", 1, text)
  kernel.no_more("control_resolve", 1, ...)
  return kernel.object(address, { handle = python.resolve(text) })
end

return { control_resolve = control_resolve }
