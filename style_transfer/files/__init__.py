"""Atomic replacement of files, locks, leftovers of crashed runs, and free space."""
