"""What a user may choose: options with their defaults, help and checks; presets; TOML files and the environment."""
