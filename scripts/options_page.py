"""Write docs/options.md, the page of all options, from their declarations in the program."""

from __future__ import annotations

from pathlib import Path

from style_transfer.cli.help import options_page

PAGE = Path(__file__).parents[1] / "docs" / "options.md"

if __name__ == "__main__":
    PAGE.write_text(options_page(), encoding="utf-8")
