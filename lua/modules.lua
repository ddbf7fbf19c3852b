-- The search path of `require`: Debian's directories for Lua 5.1, besides those that this LuaJIT was built with.
-- LUA_PATH and LUA_CPATH replace all of them, unless they contain ";;".  The chunk gets lists of templates for
-- modules in Lua and in C, each list as one string with ";" between them.

local for_lua, for_c = ...
local find, getenv, gmatch = string.find, os.getenv, string.gmatch

local function extend(path, templates, given)
  if given and not find(given, ";;", 1, true) then return path end
  for template in gmatch(templates, "[^;]+") do
    if not find(";" .. path .. ";", ";" .. template .. ";", 1, true) then path = path .. ";" .. template end
  end
  return path
end

package.path = extend(package.path, for_lua, getenv("LUA_PATH"))
package.cpath = extend(package.cpath, for_c, getenv("LUA_CPATH"))
