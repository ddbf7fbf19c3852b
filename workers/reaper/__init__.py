"""The reaper: deletes empty cgroups, and reports what they used."""
