"""The table of other people's clients in the docs, of what a run of them has left in a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "protocols.md"
BEGIN, END = "<!-- clients: begin -->", "<!-- clients: end -->"


def table(folder: Path) -> str:
    """A row for each behaviour, a column for each package and version."""
    found: dict[str, dict[str, list[str]]] = {}
    for file in sorted(folder.glob("*.json")):
        said = json.loads(file.read_text())
        column = found.setdefault(said.pop("version"), {})
        for name, result in said.items():
            column.setdefault(name, []).append(result)
    names = list(next(iter(found.values())))
    lines = ["| | " + " | ".join(f"`{version}`" for version in found) + " |"]
    lines.append("|---" * (len(found) + 1) + "|")
    for name in names:
        cells = [" / ".join(dict.fromkeys(column[name])) for column in found.values()]
        lines.append(f"| {name} | " + " | ".join(cell.split(":")[0] for cell in cells) + " |")
    return "\n".join(lines)


def main(folder: str) -> None:
    """Put the table into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(Path(folder))}\n{END}{after}")


if __name__ == "__main__":
    main(sys.argv[1])
