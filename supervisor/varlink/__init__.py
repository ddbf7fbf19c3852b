"""Varlink (https://varlink.org) as used by spawnd and its workers: messages, errors, connections."""
