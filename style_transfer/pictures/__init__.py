"""Picture files to and from float32 sRGB arrays, colour management and colour spaces."""
