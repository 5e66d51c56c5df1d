"""Built-in networks: one module for each family, which registers its networks in `registry.NETWORKS`."""
