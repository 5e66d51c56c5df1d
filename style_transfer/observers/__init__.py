"""Those who watch a run: the console's bar and JSON lines, and the live page."""
