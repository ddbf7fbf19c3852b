"""Converters: one Lua value to one checked value of a `Service`.

A converter takes the value and the `Checking` that it stands in, returns what the service
holds and raises `InvalidValue`; one that reads a table reports every bad entry first.
"""
