"""Makes the table of settings in README.md from the code: `make readme`."""

import re
from pathlib import Path

from executor.settings import documented

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- settings: made by `make readme` -->", "<!-- end of settings -->"


def settings_table() -> str:
    """The table, without the markers around it."""
    rows = [
        f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |" for name, default, meaning in documented()
    ]
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *rows])


def with_settings(text: str) -> str:
    """README's text with the table as it must be."""
    pattern = f"{re.escape(BEGIN)}.*?{re.escape(END)}"
    return re.sub(pattern, f"{BEGIN}\n{settings_table()}\n{END}", text, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(with_settings(README.read_text()))
