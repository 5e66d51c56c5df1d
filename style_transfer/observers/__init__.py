"""What follows a run: console, live page, animation, report and terminal preview."""
