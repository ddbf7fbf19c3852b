"""Converters from one Lua value to one checked value of a `Service`.

A converter takes the value and its `Checking`. It returns the value for the service or raises `InvalidValue`.
A converter of a table reports every bad entry first.
"""
