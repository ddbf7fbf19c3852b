-- fsys: files and folders, mounts, descriptors.  Every function returns a value, or nil, a message and the errno.

local kernel, python = ...
local find, format, gmatch, sub = string.find, string.format, string.gmatch, string.sub
local next, tonumber, tostring, type = next, tonumber, tostring, type

local NUMBER = 2 ^ 31 - 1

local function path(name, number, value)
  local text = kernel.string(name, number, value)
  if text == "" or find(text, "%z") then kernel.bad(name, number, "a path expected, without NUL and not empty") end
  return text
end

local function descriptor(name, number, value) return kernel.integer(name, number, value, 0, NUMBER) end

-- Returns the options of a table; unknown ones are errors.
local function options(name, number, value, known)
  if value == nil then return {} end
  for key in next, kernel.table(name, number, value) do
    if not known[key] then kernel.bad(name, number, "there is no option '" .. tostring(key) .. "'") end
  end
  return value
end

local SHOWN = { "r", "w", "x", "r", "w", "x", "r", "w", "x" }

local function bits_shown(text)
  if #text ~= 9 then return end
  local bits = 0
  for i = 1, 9 do
    local letter = sub(text, i, i)
    if letter == SHOWN[i] then bits = bits + 2 ^ (9 - i) elseif letter ~= "-" then return end
  end
  return bits
end

-- Permissions in the notation of definitions: nine characters, or octal digits as text.
local function mode(name, number, value)
  if type(value) == "string" then
    local bits = bits_shown(value) or (find(value, "^0?[0-7][0-7]?[0-7]?[0-7]?$") and tonumber(value, 8))
    if bits then return bits end
  end
  kernel.bad(name, number, 'permissions expected, as text like "rw-r--r--" or "644"')
end

local function optional(check, name, number, value, ...)
  if value == nil then return nil end -- an explicit nil, because no value at all would drop an argument
  return check(name, number, value, ...)
end

-- Whether to follow links that users other than root can set, too: follow = true.
local function follow(given) return given.follow and true or false end

local function only_follow(name, number, value) return follow(options(name, number, value, { follow = true })) end

local function text(name, number, value)
  value = kernel.string(name, number, value)
  if find(value, "%z") then kernel.bad(name, number, "text without NUL expected") end
  return value
end

local function stat_of(name, value, given, ...)
  kernel.no_more(name, 2, ...)
  local kind, bits, size, uid, gid, mtime, atime, ctime, ino, dev, rdev, nlink =
    python[name](path(name, 1, value), only_follow(name, 2, given))
  if not kind then return kind, bits, size end
  return {
    type = kind, mode = bits, size = size, uid = uid, gid = gid, mtime = mtime, atime = atime, ctime = ctime, ino = ino,
    dev = dev, rdev = rdev, nlink = nlink,
  }
end

local fsys = {}

function fsys.stat(value, given, ...) return stat_of("stat", value, given, ...) end
function fsys.lstat(value, given, ...) return stat_of("lstat", value, given, ...) end

function fsys.mkdir(value, permissions, ...)
  kernel.no_more("mkdir", 2, ...)
  local given = { mode = permissions }
  if type(permissions) == "table" then
    given = options("mkdir", 2, permissions, { mode = true, parents = true, follow = true })
  end
  local bits = optional(mode, "mkdir", 2, given.mode)
  return python.mkdir(path("mkdir", 1, value), bits, given.parents and true or false, follow(given))
end

function fsys.rmdir(value, given, ...)
  kernel.no_more("rmdir", 2, ...)
  return python.rmdir(path("rmdir", 1, value), only_follow("rmdir", 2, given))
end

function fsys.rename(from, to, given, ...)
  kernel.no_more("rename", 3, ...)
  return python.rename(path("rename", 1, from), path("rename", 2, to), only_follow("rename", 3, given))
end

function fsys.remove(value, given, ...)
  kernel.no_more("remove", 2, ...)
  given = options("remove", 2, given, { recursive = true, follow = true })
  return python.remove(path("remove", 1, value), given.recursive and true or false, follow(given))
end

function fsys.copy(from, to, given, ...)
  kernel.no_more("copy", 3, ...)
  return python.copy(path("copy", 1, from), path("copy", 2, to), only_follow("copy", 3, given))
end

function fsys.symlink(target, value, given, ...)
  kernel.no_more("symlink", 3, ...)
  return python.symlink(path("symlink", 1, target), path("symlink", 2, value), only_follow("symlink", 3, given))
end

function fsys.readlink(value, given, ...)
  kernel.no_more("readlink", 2, ...)
  return python.readlink(path("readlink", 1, value), only_follow("readlink", 2, given))
end

function fsys.chmod(value, permissions, given, ...)
  kernel.no_more("chmod", 3, ...)
  return python.chmod(path("chmod", 1, value), mode("chmod", 2, permissions), only_follow("chmod", 3, given))
end

function fsys.chown(value, user, group, given, ...)
  kernel.no_more("chown", 4, ...)
  given = options("chown", 4, given, { link = true, follow = true })
  user = optional(text, "chown", 2, user)
  group = optional(text, "chown", 3, group)
  return python.chown(path("chown", 1, value), user, group, given.link and true or false, follow(given))
end

function fsys.dir(value, given, ...)
  kernel.no_more("dir", 2, ...)
  local names, message, number = python.dir(path("dir", 1, value), only_follow("dir", 2, given))
  if not names then return nil, message, number end
  local found = {}
  for name in gmatch(names, "[^%z]+") do found[#found + 1] = name end
  return found
end

function fsys.mount(source, target, kind, given, more, ...)
  kernel.no_more("mount", 5, ...)
  kind = optional(text, "mount", 3, kind) or ""
  given = optional(text, "mount", 4, given) or ""
  local follows = only_follow("mount", 5, more)
  return python.mount(path("mount", 1, source), path("mount", 2, target), kind, given, follows)
end

function fsys.umount(target, given, ...)
  kernel.no_more("umount", 2, ...)
  given = options("umount", 2, given, { lazy = true, force = true, follow = true })
  local lazy, force = given.lazy and true or false, given.force and true or false
  return python.umount(path("umount", 1, target), lazy, force, follow(given))
end

function fsys.access(value, wanted, given, ...)
  kernel.no_more("access", 3, ...)
  wanted = optional(kernel.string, "access", 2, wanted) or ""
  if find(wanted, "[^rwx]") then kernel.bad("access", 2, "'r', 'w' and 'x' expected") end
  return python.access(path("access", 1, value), wanted, only_follow("access", 3, given))
end

function fsys.read(value, given, ...)
  kernel.no_more("read", 2, ...)
  return python.read(path("read", 1, value), only_follow("read", 2, given))
end

function fsys.write(value, data, given, ...)
  kernel.no_more("write", 3, ...)
  given = options("write", 3, given, { append = true, mode = true, follow = true })
  local permissions = optional(mode, "write", 3, given.mode)
  data = kernel.string("write", 2, data)
  return python.write(path("write", 1, value), data, permissions, given.append and true or false, follow(given))
end

-- Sets the masked permissions in the notation of definitions; returns the former ones.  No argument changes nothing.
function fsys.umask(permissions, ...)
  kernel.no_more("umask", 1, ...)
  local bits = optional(mode, "umask", 1, permissions)
  local before = python.umask(bits or 63)
  if not bits then python.umask(before) end
  return format("%04o", before)
end

function fsys.chdir(value, given, ...)
  kernel.no_more("chdir", 2, ...)
  return python.chdir(path("chdir", 1, value), only_follow("chdir", 2, given))
end

function fsys.open(value, how, given, ...)
  kernel.no_more("open", 3, ...)
  how = how == nil and "r" or kernel.choice("open", 2, how, { "r", "r+", "w", "w+", "a", "a+" })
  return python.open(path("open", 1, value), how, only_follow("open", 3, given))
end

function fsys.dup(fd, number, ...)
  kernel.no_more("dup", 2, ...)
  return python.dup(descriptor("dup", 1, fd), optional(descriptor, "dup", 2, number))
end

function fsys.close(first, last, ...)
  kernel.no_more("close", 2, ...)
  return python.close(descriptor("close", 1, first), optional(descriptor, "close", 2, last))
end

return { fsys = fsys }
