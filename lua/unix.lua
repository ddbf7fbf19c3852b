-- unix.users and unix.groups, by name or number; nil if there is no such user or group.

local kernel, python = ...
local gmatch, setmetatable, tostring, type = string.gmatch, setmetatable, tostring, type

local function user(key)
  local name, uid, gid, gecos, home, shell = python.user(key)
  return name and { name = name, uid = uid, gid = gid, gecos = gecos, home = home, shell = shell }
end

local function group(key)
  local name, gid, members = python.group(key)
  if not name then return nil end
  local found = { name = name, gid = gid, members = {} }
  for member in gmatch(members, "[^%z]+") do found.members[#found.members + 1] = member end
  return found
end

local function database(what, look)
  return setmetatable({}, {
    __index = function(_, key)
      if type(key) == "number" then key = kernel.integer(what, 1, key, 0, 2 ^ 32 - 2) end
      if type(key) ~= "string" and type(key) ~= "number" then
        kernel.raise(what .. ": a name or a number expected, got " .. type(key))
      end
      return look(tostring(key)) or nil
    end,
    __newindex = function() kernel.raise(what .. " is the database of this host, it cannot be changed") end,
    __metatable = false,
  })
end

return { unix = { users = database("users", user), groups = database("groups", group) } }
