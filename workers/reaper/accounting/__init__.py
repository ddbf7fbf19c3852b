"""Accounting of released cgroups in a database, with a spool for rows that it does not have yet."""
