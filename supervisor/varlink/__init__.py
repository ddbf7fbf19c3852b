"""Varlink (https://varlink.org), as spawnd and its workers speak it: messages, errors, connections."""
