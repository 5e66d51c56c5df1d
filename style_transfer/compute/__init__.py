"""Devices, precision, torch's modes, memory, threads, processes and resampling."""
