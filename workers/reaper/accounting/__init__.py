"""Accounting of released cgroups in a database, with a spool for rows that are not yet in it."""
