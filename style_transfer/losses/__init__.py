"""Losses as additive statistics and scores of their totals, and guidance by masks."""
