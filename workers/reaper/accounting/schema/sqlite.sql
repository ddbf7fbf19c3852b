-- Accounting of released cgroups in SQLite, version 1 (PRAGMA user_version).
CREATE TABLE accounting (
  host               TEXT    NOT NULL,
  boot               TEXT    NOT NULL,  -- /proc/sys/kernel/random/boot_id
  cgroup             INTEGER NOT NULL,  -- the kernel's id of the cgroup, unique within a boot
  ended              REAL    NOT NULL,  -- seconds since 1970
  parent             INTEGER,           -- the id of the parent cgroup, unless it is the scope
  path               TEXT    NOT NULL,  -- as in /proc/self/cgroup
  scope              TEXT    NOT NULL,
  btime              REAL,              -- seconds since 1970
  cpu_usage_usec     INTEGER,
  cpu_user_usec      INTEGER,
  cpu_system_usec    INTEGER,
  memory_peak        INTEGER,           -- bytes
  memory_events_high INTEGER,
  memory_events_max  INTEGER,
  memory_events_oom  INTEGER,
  pids_peak          INTEGER,
  pids_forks         INTEGER,
  pids_events_max    INTEGER,
  xattrs             TEXT    NOT NULL,  -- a JSON object
  PRIMARY KEY (host, boot, cgroup, ended)
) WITHOUT ROWID;
CREATE INDEX accounting_ended ON accounting (ended);
CREATE INDEX accounting_parent ON accounting (host, boot, parent) WHERE parent IS NOT NULL;
PRAGMA user_version = 1;
