"""What cgroups used, kept in a database: batches of rows, and a spool for what it does not have yet."""
