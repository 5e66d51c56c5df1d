"""Writing of picture files: output formats registered by suffix, one module for each, and atomic replacement of the old file."""
