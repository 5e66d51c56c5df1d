"""The objective, its evaluation in two sweeps over tiles and devices, the memory planner, and recovery from out of memory."""
