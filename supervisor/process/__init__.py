"""Processes of services: descriptors, set-up of the child, reaping, cgroups."""
