"""The objective, its evaluation in two sweeps over tiles and devices, and the memory planner."""
