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

-- The options of a table: only those that there are.
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

-- Permissions as the definitions have them: nine characters, or octal digits as text.
local function mode(name, number, value)
  if type(value) == "string" then
    local bits = bits_shown(value) or (find(value, "^0?[0-7][0-7]?[0-7]?[0-7]?$") and tonumber(value, 8))
    if bits then return bits end
  end
  kernel.bad(name, number, 'permissions expected, as text like "rw-r--r--" or "644"')
end

local function optional(check, name, number, value, ...)
  if value == nil then return nil end -- and not nothing, or an argument would be missing
  return check(name, number, value, ...)
end

local function stat_of(name, follow, value, ...)
  kernel.no_more(name, 1, ...)
  local kind, bits, size, uid, gid, mtime, atime, ctime, ino, dev, rdev, nlink = python.stat(path(name, 1, value), follow)
  if not kind then return kind, bits, size end
  return {
    type = kind, mode = bits, size = size, uid = uid, gid = gid, mtime = mtime, atime = atime, ctime = ctime, ino = ino,
    dev = dev, rdev = rdev, nlink = nlink,
  }
end

local fsys = {}

function fsys.stat(value, ...) return stat_of("stat", true, value, ...) end
function fsys.lstat(value, ...) return stat_of("lstat", false, value, ...) end

function fsys.mkdir(value, permissions, ...)
  kernel.no_more("mkdir", 2, ...)
  local given = { mode = permissions }
  if type(permissions) == "table" then given = options("mkdir", 2, permissions, { mode = true, parents = true }) end
  return python.mkdir(path("mkdir", 1, value), optional(mode, "mkdir", 2, given.mode), given.parents and true or false)
end

function fsys.rmdir(value, ...)
  kernel.no_more("rmdir", 1, ...)
  return python.rmdir(path("rmdir", 1, value))
end

function fsys.rename(from, to, ...)
  kernel.no_more("rename", 2, ...)
  return python.rename(path("rename", 1, from), path("rename", 2, to))
end

function fsys.remove(value, given, ...)
  kernel.no_more("remove", 2, ...)
  given = options("remove", 2, given, { recursive = true })
  return python.remove(path("remove", 1, value), given.recursive and true or false)
end

function fsys.copy(from, to, ...)
  kernel.no_more("copy", 2, ...)
  return python.copy(path("copy", 1, from), path("copy", 2, to))
end

function fsys.symlink(target, value, ...)
  kernel.no_more("symlink", 2, ...)
  return python.symlink(path("symlink", 1, target), path("symlink", 2, value))
end

function fsys.readlink(value, ...)
  kernel.no_more("readlink", 1, ...)
  return python.readlink(path("readlink", 1, value))
end

function fsys.chmod(value, permissions, ...)
  kernel.no_more("chmod", 2, ...)
  return python.chmod(path("chmod", 1, value), mode("chmod", 2, permissions))
end

function fsys.chown(value, user, group, given, ...)
  kernel.no_more("chown", 4, ...)
  given = options("chown", 4, given, { link = true })
  user = optional(kernel.string, "chown", 2, user)
  group = optional(kernel.string, "chown", 3, group)
  return python.chown(path("chown", 1, value), user, group, not given.link)
end

function fsys.dir(value, ...)
  kernel.no_more("dir", 1, ...)
  local names, message, number = python.dir(path("dir", 1, value))
  if not names then return nil, message, number end
  local found = {}
  for name in gmatch(names, "[^%z]+") do found[#found + 1] = name end
  return found
end

function fsys.mount(source, target, kind, given, ...)
  kernel.no_more("mount", 4, ...)
  kind = optional(kernel.string, "mount", 3, kind) or ""
  given = optional(kernel.string, "mount", 4, given) or ""
  return python.mount(path("mount", 1, source), path("mount", 2, target), kind, given)
end

function fsys.umount(target, given, ...)
  kernel.no_more("umount", 2, ...)
  given = options("umount", 2, given, { lazy = true, force = true })
  return python.umount(path("umount", 1, target), given.lazy and true or false, given.force and true or false)
end

function fsys.access(value, wanted, ...)
  kernel.no_more("access", 2, ...)
  wanted = optional(kernel.string, "access", 2, wanted) or ""
  if find(wanted, "[^rwx]") then kernel.bad("access", 2, "'r', 'w' and 'x' expected") end
  return python.access(path("access", 1, value), wanted)
end

function fsys.read(value, ...)
  kernel.no_more("read", 1, ...)
  return python.read(path("read", 1, value))
end

function fsys.write(value, data, given, ...)
  kernel.no_more("write", 3, ...)
  given = options("write", 3, given, { append = true, mode = true })
  local permissions = optional(mode, "write", 3, given.mode)
  return python.write(path("write", 1, value), kernel.string("write", 2, data), permissions, given.append and true or false)
end

-- The bits that are masked, as the definitions have them; returns those before.  Without an argument nothing changes.
function fsys.umask(permissions, ...)
  kernel.no_more("umask", 1, ...)
  local bits = optional(mode, "umask", 1, permissions)
  local before = python.umask(bits or 63)
  if not bits then python.umask(before) end
  return format("%04o", before)
end

function fsys.chdir(value, ...)
  kernel.no_more("chdir", 1, ...)
  return python.chdir(path("chdir", 1, value))
end

function fsys.open(value, how, ...)
  kernel.no_more("open", 2, ...)
  how = how == nil and "r" or kernel.choice("open", 2, how, { "r", "r+", "w", "w+", "a", "a+" })
  return python.open(path("open", 1, value), how)
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
