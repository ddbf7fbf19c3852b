-- A small set of start-up scripts: modules, which are started and stopped rather than run.
--
--   spawnd --config start-up.lua --runtime-dir /tmp/start-up        in a terminal of its own
--   spawnctl --socket /tmp/start-up/control graph                   what needs what
--   spawnctl --socket /tmp/start-up/control graph --times           when each was up, and what the last one waited for
--
-- Everything after module(…) belongs to that module, up to the next one: its globals are the keys of a service, as a
-- table would have them, its functions are called in a process of their own, as root unless `user` says otherwise.
-- What is local, or begins with an underscore, is the file's own.

local FOLDER = "/tmp/start-up-example"

-- What fails says why: nil, a message and the errno go straight back to the supervisor.
module("folder", package.seeall)
description = "a folder for the others"

function start()
  return fsys.mkdir(FOLDER, { mode = "755", parents = true })
end

function stop()
  return fsys.remove(FOLDER, { recursive = true })
end

-- Nothing is forked for what the kernel can be asked directly.
module("inventory", package.seeall)
depends(_M, "folder")
description = "what this host is, in a file"

local function total(processes)
  local memory = 0
  for _, process in ipairs(processes) do memory = memory + process.memory end
  return memory
end

function start()
  local host, processes = proc.uname(), proc.ps()
  local text = string.format("%s %s: %d processes, %.0f MiB\n", host.sysname, host.release, #processes,
    total(processes) / 2 ^ 20)
  return fsys.write(FOLDER .. "/inventory", text, { mode = "644" })
end

-- `spawnctl reload inventory` writes it anew, `spawnctl status inventory` shows it.
reload = start

function status()
  return (fsys.read(FOLDER .. "/inventory"):gsub("\n", ""))
end

-- A module with a process: `start` comes before it and `stop` after it, as root; the process is nobody's, as that of a
-- table is.  With `user` both would be that user's.
module("clock", package.seeall)
depends(_M, "folder")
description = "touches a file now and then"
exec = "/bin/sh"
arg = { "-c", "while sleep 5; do date > " .. FOLDER .. "/clock/now; done" }
stdout, stderr = log(), log() -- kept, and shown by `spawnctl logs clock`; what functions write is kept in any case

function start()
  local nobody = unix.users.nobody
  local made, message, number = fsys.mkdir(FOLDER .. "/clock", "755")
  if not made and number ~= 17 then return nil, message end -- EEXIST is fine: it is started again after a crash
  if proc.getuid() ~= 0 then return true end
  return fsys.chown(FOLDER .. "/clock", nobody.uid, nobody.gid)
end

-- A group only depends on others: `spawnctl start everything` brings all of them up.
module("everything", package.seeall)
depends(_M, "inventory", "clock")

function start()
  syslog.log("info", "all of it is up")
end
