-- Classic services of inetd, as an operator would run them.  Copy the entries that are wanted to a file in
-- /etc/spawnd/services.d: a user that does not exist is an error, and so would be all of this file.
-- docs/inetd.md explains how the files of inetd and xinetd become definitions.
--
-- None of them has a process before its first client.  A service with `accept` starts its program for each client,
-- which is descriptors 0 and 1 of that process; 2 is the log.

_DEFAULT = {
  stderr = log(),
  -- Nothing that these programs run gains privileges, by whatever file.
  no_new_privs = true,
}

local here = "/usr/share/spawn-supervisor/examples"

-- Each service has a user of its own, as processes of one user can take each other's descriptors and memory:
--   useradd --system --user-group --no-create-home --shell /usr/sbin/nologin gitdaemon

-- Repositories below /srv/git that have a file `git-daemon-export-ok`, for everybody to read.
git = {
  description = "git repositories, read only",
  accept = {
    max = 50, -- clients beyond it wait in the listen backlog
    per_source = 5, source_rate = "60/m", -- those of one address beyond these are refused
    defer_accept = "10s", -- and those that ask nothing wait in the kernel
    session_timeout = "1h",
  },
  exec = "/usr/bin/git",
  arg = {
    "daemon", "--inetd", "--log-destination=stderr",
    "--init-timeout=10", "--timeout=60", -- seconds for the request, and between two signs of life
    "--base-path=/srv/git", "/srv/git",
  },
  user = "gitdaemon", group = "gitdaemon",
  -- The repositories belong to others, and git reads such ones only where it is told to.
  env = { GIT_CONFIG_SYSTEM = here .. "/gitconfig" },
  fd = { tcp("*", 9418) },
  limits = { cpu = "10m", nofile = 256, core = 0 },
  nice = 5,
}

-- rsyncd.conf has the folders.
rsync = {
  description = "files for mirrors",
  accept = {
    -- only_from = { "192.0.2.0/24", "2001:db8::/32" },
    max = 20, on_limit = "refuse", -- a mirror tries again later
    per_source = 2, source_rate = "30/m",
    keepalive = true,
  },
  exec = "/usr/bin/rsync",
  arg = { "--daemon", "--config=" .. here .. "/rsyncd.conf" },
  user = "rsyncd", group = "rsyncd",
  fd = { tcp("*", 873) },
  limits = { nofile = 256, core = 0 },
  nice = 10, io_class = "idle",
}

-- Facts about a host: a file in the folder for each name.  The program is a shell script.
finger = {
  description = "who and what is here (RFC 1288)",
  accept = { max = 20, per_source = 4, source_rate = "60/m", rate = "20/s", session_timeout = "10s" },
  exec = here .. "/finger",
  cwd = here .. "/plans",
  user = "fingerd", group = "fingerd",
  fd = { tcp("*", 79) },
  limits = { cpu = 2, data = "16m", fsize = 0, nofile = 16, core = 0 },
}

-- Debian's tftpd-hpa, whose package makes the user.  It is a `wait` service: it gets the socket itself, serves all
-- clients that come, and ends when there has been none for a minute.  The next one starts it again.
tftp = {
  description = "boot images (RFC 1350), read only",
  status = "demand",
  exec = "/usr/sbin/in.tftpd",
  arg = { "--secure", "--user", "tftp", "--timeout", 60, "/srv/tftp" },
  stdin = udp("0.0.0.0", 69),
  -- It has a process for each transfer, which changes its root to the folder and its user to tftp, and so gives up all
  -- privileges.  These three are all that it takes for that.
  user = "root", group = "root",
  capabilities = { keep = { "sys_chroot", "setgid", "setuid" } },
  kill_mode = "process", -- a transfer may outlast the process that takes the requests
  pids_max = 100,
  limits = { nofile = 64, core = 0 },
}

-- Logins, for a host that people rarely log in to.  sshd counts nobody when it is started like this, so the limits of
-- sshd_config for clients that have not logged in (MaxStartups, PerSourceMaxStartups) are those of `accept` instead.
-- Neither `restart` nor a new definition cuts a login, nor does `spawnctl stop --keep-sessions ssh`.  `stop` alone ends
-- all of them.
--[[
ssh = {
  description = "logins",
  accept = { max = 100, per_source = 10, source_rate = "12/m", keepalive = true },
  depends = "sshdir",
  exec = "/usr/sbin/sshd",
  arg = { "-i", "-e" }, -- -e: to the log of spawnd, not to syslog
  user = "root", group = "root",
  umask = "022", -- of everybody who logs in
  no_new_privs = false, -- or nobody who logs in could use sudo
  fd = { tcp("*", 22) },
}

-- sshd wants this folder to be there.  Its package leaves that to systemd.
sshdir = {
  task = true,
  status = "stop", -- it runs when ssh first starts
  exec = "/usr/bin/install",
  arg = { "-d", "-m", "755", "/run/sshd" },
  user = "root", group = "root",
}
]]
