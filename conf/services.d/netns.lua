-- Network namespaces, one for each customer.  An example: take the comment marks away, and adapt the names and
-- addresses.  /usr/share/doc/spawn-supervisor/netns.md says what becomes of them.

-- netns.customer1 = {
--   addresses = { "192.0.2.2/24", "2001:db8::2/64" },
--   host_addresses = { "192.0.2.1/24", "2001:db8::1/64" },     -- without them the host's end is left to systemd-networkd
--   gateway = { "192.0.2.1", "2001:db8::1" },
--   dns = { "192.0.2.53" },
--   setup = "/etc/cm4all/spawn/netns/setup.d/customer1",       -- which is the default, if it is there
-- }

-- Many that differ in little:
-- for number = 2, 9 do
--   netns["customer" .. number] = {
--     addresses = "192.0.2." .. number * 8 + 2 .. "/29",
--     host_addresses = "192.0.2." .. number * 8 + 1 .. "/29",
--     gateway = "192.0.2." .. number * 8 + 1,
--   }
-- end
