-- Ends the processes of an account as soon as the database says that it is locked.
--
--   CREATE TABLE lockout (account text PRIMARY KEY, told timestamptz);
--   -- to lock one:
--   INSERT INTO lockout VALUES ('mallory'); NOTIFY lockout;
--
-- The table holds what is to be done and the notification says that there is something, so that nothing is lost while
-- one of both is down: what was not done is done at the next notification, at a reload and at the next start.

local address = os.getenv("CONTROL") or "/run/cm4all/workshop/control"
local db = pg:new("dbname=accounting", "public")
local control

local function tell(account)
  -- made when it is needed: whoever has the socket may be started later than this
  control = control or assert(control_client:new(address))
  assert(control:send(control:build():terminate_children(account)))
  assert(db:execute("UPDATE lockout SET told = now() WHERE account = $1", { account }))
  print("told to end the processes of " .. account)
end

local function lock_out()
  local result = assert(db:execute("SELECT account FROM lockout WHERE told IS NULL ORDER BY account"))
  local row = result:fetch({}, "a")
  while row do
    tell(row.account)
    row = result:fetch(row, "a")
  end
end

db:listen("lockout", lock_out)

function reload() lock_out() end

-- At the start the database may not be there yet: that is no reason not to start.
local fine, problem = pcall(lock_out)
if not fine then print(problem) end
