"""The coarse-to-fine optimisation: optimizers, run state, checkpoints and the loop that yields iterates."""
