"""The built-in workers, each a process of its own under the supervisor."""
