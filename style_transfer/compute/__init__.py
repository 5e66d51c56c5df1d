"""Devices, precision, memory, threads, processes and resampling."""
