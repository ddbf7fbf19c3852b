-- The reaper: deletes cgroups that ran empty, and keeps what they used.  docs/reaper.md has all options.
reaper = {
  description = "Accounting and removal of cgroups",
  worker = "reaper",

  -- cgroups are root's.  To delete one takes this capability and no other.
  user = "cm4all-spawn-reaper", group = "cm4all-spawn-reaper",
  capabilities = { keep = { "dac_override" } },

  control = true,                           -- spawnctl accounting, spawnctl call reaper Status
  options = {
    -- What is below these is watched.
    scopes = {
      "/system.slice/system-cm4all.slice/bp-spawn.scope",
      "/system.slice/system-cm4all.slice/lukko-spawn.scope",
      "/system.slice/system-cm4all.slice/workshop-spawn.scope",
    },
    script = "/etc/cm4all/spawn/reaper.lua",
    -- Files and directories that the script may write to, such as "/var/log/usage"; it may read all.
    script_writes = {},

    -- Where to keep a row for each cgroup; for many hosts "postgresql:host=… dbname=…".  Without it nothing is kept.
    database = "sqlite:/var/lib/spawnd/accounting.db",
    -- Extended attributes of cgroups that are kept as well: "account" is user.account.
    xattrs = {},
    -- How long rows are kept, for ever without it.
    keep = "400d",
  },

  limits = { core = 0 },
  stdout = log(), stderr = log(),           -- spawnctl logs reaper, journalctl -t reaper
  ready = "notify",
  watchdog = "30s",
  reload_signal = "HUP",                    -- calls the script's function reload()
  restart_signal = "RTMIN+2",
  start_limit = false,
}
