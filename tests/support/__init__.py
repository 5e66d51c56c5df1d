"""Shared pieces of the tests: tiny seeded networks and pictures, oracles, a simulated accelerator, a browser."""
