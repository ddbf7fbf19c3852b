-- Sends a report of each released cgroup to a collector over UDP, sealed: on its way nobody can read it, and of
-- those who have this file nobody can either; only the collector has the secret key.
--
-- The collector makes its keys once, with `local public, secret = sodium.crypto_box_keypair()` or PyNaCl, and opens
-- each datagram with `sodium.crypto_box_seal_open(datagram, public, secret)`.

local key = assert(sodium.hex2bin(os.getenv("COLLECTOR_KEY") or ""), "COLLECTOR_KEY is not hexadecimal")
assert(#key == 32, "COLLECTOR_KEY has not 64 digits")
local collector = assert(socket:connect(os.getenv("COLLECTOR") or "127.0.0.1:7171", { type = "dgram" }))

local FIELDS = { "path", "btime", "age", "cpu_total", "cpu_user", "cpu_system", "memory_peak", "pids_peak", "pids_forks" }

function cgroup_released(cgroup)
  local lines = {}
  for _, field in ipairs(FIELDS) do
    local value = cgroup[field]
    if value then lines[#lines + 1] = field .. "=" .. value end
  end
  local account = cgroup.xattr.account
  if account then lines[#lines + 1] = "account=" .. account end
  local sent, problem = collector:send(sodium.crypto_box_seal(table.concat(lines, "\n"), key))
  if not sent then print("no report of " .. cgroup.path .. ": " .. problem) end
end
