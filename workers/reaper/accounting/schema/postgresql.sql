-- Accounting of released cgroups in PostgreSQL, version 1.
-- The reaper creates missing tables, in the first schema of its search_path.
CREATE TABLE accounting_version (version integer NOT NULL);
INSERT INTO accounting_version VALUES (1);

-- The rows of all hosts. Each month (UTC) has a partition, accounting_YYYY_MM, which is created with its first
-- row. To delete old rows, drop their partition: DROP TABLE accounting_2026_11.
CREATE TABLE accounting (
  host               text        NOT NULL,
  boot               text        NOT NULL,  -- /proc/sys/kernel/random/boot_id
  cgroup             bigint      NOT NULL,  -- the kernel's id of the cgroup, unique within a boot
  ended              timestamptz NOT NULL,
  parent             bigint,                -- the id of the parent cgroup, unless it is the scope
  path               text        NOT NULL,  -- as in /proc/self/cgroup
  scope              text        NOT NULL,
  btime              timestamptz,
  cpu_usage_usec     bigint,
  cpu_user_usec      bigint,
  cpu_system_usec    bigint,
  memory_peak        bigint,                -- bytes
  memory_events_high bigint,
  memory_events_max  bigint,
  memory_events_oom  bigint,
  pids_peak          bigint,
  pids_forks         bigint,
  pids_events_max    bigint,
  xattrs             jsonb       NOT NULL,
  PRIMARY KEY (host, boot, cgroup, ended)
) PARTITION BY RANGE (ended);
CREATE INDEX accounting_ended ON accounting (ended);
CREATE INDEX accounting_parent ON accounting (host, boot, parent) WHERE parent IS NOT NULL;
