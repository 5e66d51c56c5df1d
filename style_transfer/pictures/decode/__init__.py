"""Reading of picture files: formats recognised by content, one module for each, with sizes checked before anything is decoded."""
