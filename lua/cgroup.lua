-- The cgroup object, the argument of a handler.

local kernel, python = ...
local type = type

local new

local xattr = kernel.class("xattr table", function(state, name)
  if type(name) == "string" then return python.xattr(state.handle, name) end
end)

local cgroup = kernel.class("cgroup", function(state, name)
  if name == "xattr" then
    python.get(state.handle, "path") -- raises an error if the object is stale
    state.xattr = state.xattr or kernel.object(xattr, { handle = state.handle })
    return state.xattr
  end
  if name == "parent" then
    local handle = python.parent(state.handle)
    if handle and not state.parent then state.parent = new(handle) end
    return state.parent
  end
  if type(name) == "string" then return python.get(state.handle, name) end
end)

function new(handle) return kernel.object(cgroup, { handle = handle }) end

kernel.cgroup = new

return {}
