"""Watchers of circus as definitions."""
