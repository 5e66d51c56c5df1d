"""Training of the built-in compact network; see README.md."""
