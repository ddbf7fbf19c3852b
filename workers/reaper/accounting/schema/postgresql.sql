-- Accounting of released cgroups in PostgreSQL, version 1.
-- The reaper makes it where it is not there yet, in the schema that comes first on its search_path.
CREATE TABLE accounting_version (version integer NOT NULL);
INSERT INTO accounting_version VALUES (1);

-- Of all hosts that report here.  One partition a month (UTC), accounting_YYYY_MM, made when the first row
-- comes; what is not wanted any more goes with its partition: DROP TABLE accounting_2026_11.
CREATE TABLE accounting (
  host               text        NOT NULL,
  boot               text        NOT NULL,  -- /proc/sys/kernel/random/boot_id
  cgroup             bigint      NOT NULL,  -- the kernel's id of the cgroup, in this boot its own
  ended              timestamptz NOT NULL,
  parent             bigint,                -- the id of the cgroup that it is in, unless that is the scope
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
