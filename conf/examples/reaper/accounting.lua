-- One row in PostgreSQL for each released cgroup, by the account that its spawner has noted in `user.account`.
--
--   CREATE SCHEMA accounting;
--   CREATE TABLE accounting.usage (
--     account text NOT NULL, path text NOT NULL, began timestamptz, ended timestamptz NOT NULL DEFAULT now(),
--     cpu_s double precision, memory_peak bigint, processes bigint, oom bigint);
--
-- Where the server is comes from libpq's environment (PGHOST, PGUSER, PGPASSFILE, …) or from the text below.

local db = pg:new("dbname=accounting", "accounting")

-- The attribute of the cgroup itself or of the nearest one above that has it.
local function account_of(cgroup)
  while cgroup do
    local account = cgroup.xattr.account
    if account then return account end
    cgroup = cgroup.parent
  end
end

function cgroup_released(cgroup)
  local account = account_of(cgroup)
  if not account then return end
  local result, problem = db:execute([[
    INSERT INTO usage (account, path, began, cpu_s, memory_peak, processes, oom)
    VALUES ($1, $2, to_timestamp($3), $4, $5, $6, $7)]],
    { account, cgroup.path, cgroup.btime, cgroup.cpu_total, cgroup.memory_peak, cgroup.pids_peak,
      cgroup.memory_events_oom })
  -- what is unknown is nil, and NULL in the table; a row that is lost is at least in the log
  if not result then
    print("not accounted: " .. account .. " " .. cgroup.path .. ": " .. problem)
  end
end
