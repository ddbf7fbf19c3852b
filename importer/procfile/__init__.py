"""Processes of a Procfile as definitions."""
