"""Style losses by name; each module registers its own in `registry.STYLE_LOSSES`."""
