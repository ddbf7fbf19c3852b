-- syslog.log(level, message): true, or nil, a message and the errno.

local kernel, python = ...

local LEVELS = { "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug" }
local OTHER = { error = "err", warn = "warning", panic = "emerg" } -- further names of levels, from syslog(3)

local syslog = {}

function syslog.log(level, message, ...)
  kernel.no_more("log", 2, ...)
  level = kernel.choice("log", 1, OTHER[level] or level, LEVELS)
  return python.log(level, kernel.string("log", 2, message))
end

function syslog.open(ident, ...)
  kernel.no_more("open", 1, ...)
  return python.open(kernel.string("open", 1, ident))
end

function syslog.close(...)
  kernel.no_more("close", 0, ...)
  return python.close()
end

return { syslog = syslog }
