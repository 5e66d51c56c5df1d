"""Content losses by name; each module registers its own in `registry.CONTENT_LOSSES`."""
