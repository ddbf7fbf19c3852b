"""The reaper: deletes cgroups that ran empty, and says what they used."""
