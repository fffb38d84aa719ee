"""The pages of the documentation and the blocks of code in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, and where it begins."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def file(self) -> str:
        """The file that its first line names (`# my_teacher.py`), or nothing."""
        named = re.match(r"#\s+([\w/]+\.(?:py|toml))\b", self.text)
        return named[1] if named else ""

    @property
    def where(self) -> str:
        """Page and line, for messages."""
        return f"{name_of(self.page)}:{self.line}"


def name_of(page: Path) -> str:
    """A page's path from the root of the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page in some languages, in order."""
    text = page.read_text(encoding="utf-8")
    found = [
        Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if block.language in languages]


def limbeck_lines(page: Path) -> list[list[str]]:
    """Words after `limbeck` of every line `$ limbeck ...` or `$ ... -m limbeck ...`."""
    texts = (block.text.replace("\\\n", " ") for block in blocks(page, "console"))
    lines = [line for text in texts for line in text.splitlines()]
    matches = (re.match(r"\$ (?:\S+ .*-m )?limbeck\b(.*)", line) for line in lines)
    return [shlex.split(match[1], comments=True) for match in matches if match]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))
