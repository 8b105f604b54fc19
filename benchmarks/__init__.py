"""Measurements, each a command that prints a table: ratios within one run, never asserted."""
