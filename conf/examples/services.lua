-- Three services to try, on unprivileged ports of 127.0.0.1.  `make run` starts them from a checkout.
--
-- Each global table is the definition of a service, named after the variable.  There are no
-- relative paths in definitions.  Globals with a leading underscore and locals define nothing.

-- What every service of this file has unless its own table says otherwise.
_DEFAULT = {
  -- The nine characters show the permission bits that new files do NOT get: this is 077.
  umask = "---rwxrwx",
  -- Standard error goes to the log under the service's name (`spawnctl logs NAME`);
  -- standard input and output are /dev/null unless a definition says otherwise.
  stderr = log(),
  -- A service that ends is started again: at once if it had been up for a second, else after a
  -- growing delay.  Ten failures in a row and it stays down until somebody starts it.
  restart = "always",
  start_limit = 10,
}

local here = "/usr/share/spawn-supervisor/examples"

qotd = {
  description = "Quote of the day (RFC 865)",
  exec = here .. "/qotd",

  -- Who it runs as, also by default, and in the group of that name (or nogroup).  Left alone where the
  -- supervisor itself does not run as root.
  user = "nobody",

  -- Its descriptors, from 3 up, opened by the supervisor before the first start and kept open from
  -- then on: while a crashed qotd is being replaced, its clients queue and none is refused.
  -- Root opens the two files, so they could be readable by root alone (chmod 600).  Services that run as one user
  -- can take such files from each other, however: qotd should have a user of its own then.
  fd = {
    udp("127.0.0.1", 1717, { name = "udp" }),
    tcp("127.0.0.1", 1717, { name = "tcp", backlog = 128 }),
    file(here .. "/quotes.txt", "r"),
    file(here .. "/quotes.index", "r"),
  },

  -- What the resource is says how a number is meant: sizes in bytes (k, m, g), times in seconds (m, h).
  limits = {
    core = 0,
    nofile = 64,
    data = "64m",
  },

  -- It is up as soon as its program has been executed: its sockets are there in any case.  A service
  -- with more to prepare says when it is done: ready = "notify", or ready = "fd".
  ready = "exec",
}

tftp = {
  description = "TFTP, read only (RFC 1350)",
  exec = here .. "/tftpd",
  arg = {}, -- arguments of the program
  env = {}, -- its whole environment: nothing is inherited

  -- It serves the directory it is started in.
  cwd = here .. "/tftpboot",
  umask = "----w--w-", -- 022

  -- The port of the protocol is 69: udp("0.0.0.0", "tftp") takes it from the services database.
  fd = { udp("127.0.0.1", 6969, { name = "requests" }) },

  limits = {
    core = 0,
    nofile = 256, -- two for each transfer
    data = { soft = "64m", hard = "128m" },
  },

  -- TERM ends it, and KILL whatever is left three seconds later.
  stop_signal = "TERM",
  stop_timeout = "3s",
}

motd = {
  description = "Message of the day, which can be changed while it runs",
  exec = here .. "/motd", -- in Lua, with lua-posix and lua-cjson
  fd = { tcp("127.0.0.1", 1718) },

  -- A control channel: one more listening socket, called `control`, behind those of `fd`.  What it
  -- is asked there, and how it answers, is the service's own business:
  --   spawnctl call motd Stats
  --   spawnctl call motd SetMessage '{"message": "Back at nine."}'
  control = true,
}
