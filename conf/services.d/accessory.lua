-- The accessory: hands out IPC, PID and user namespaces by name.  docs/accessory.md has its protocol and all options.
accessory = {
  description = "Shared namespaces by name",
  worker = "accessory",
  user = "root", group = "root",

  -- What namespaces need: to make and enter them, to write the maps of user namespaces, id 0 of the host
  -- among them, and to open what belongs to another user.  CAP_KILL is for the inits, which keep nothing else.
  capabilities = { keep = { "sys_admin", "setuid", "setgid", "setfcap", "sys_ptrace", "kill" } },

  fd = { seqpacket("@cm4all-spawn", { passcred = true, backlog = 256 }) },
  control = true,                           -- spawnctl call accessory List
  options = {
    -- Who may ask, and which ids they may map in user namespaces: "any", "own" (their own and those of
    -- /etc/subuid and /etc/subgid) or ranges, as { "100000-165535" }.  `@` is for a group.
    allow = {
      root = "any",
      ["cm4all-beng-spawn"] = "any",
      ["cm4all-lukko-spawn"] = "any",
      ["cm4all-workshop-spawn"] = "any",
    },
    expiry = "60s",                         -- after the last lease, or request
  },

  ready = "notify",
  watchdog = "10s",
  -- Its names, namespaces and leases are in here: they outlive its own crash, and spawnd's.  More than it can have:
  -- what is not in here does not.
  fdstore_max = 1000000,
  -- The inits of PID namespaces live on as well; a stop ends them, a restart hands everything over.
  kill_mode = "process",
  handover_signal = "USR1",
  restart_signal = "RTMIN+1",
  healthy_after = "100ms",
  start_limit = false,
}
