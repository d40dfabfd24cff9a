"""How long the sentences of README and docs are: words a sentence, and the share of sentences of more than 30 words.

    python scripts/prose.py                     # README and docs, without evidence, notes and what code writes
    python scripts/prose.py README.md FILE ...  # these files

Counted is prose alone: code blocks, tables, headings, formulas in blocks, pictures and HTML comments are left out. Each
list item begins a sentence of its own. Of a link its text counts; code in a line counts as one word.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEFT_OUT = (
    "docs/evidence.md",
    "docs/evidence/",
    "docs/notes/",
    "docs/reference/commands.md",
    "docs/reference/settings.md",
)
LONG = 30  # words; more make a long sentence
_ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|et al|etc|vs|cf|Fig|approx)\.", re.IGNORECASE)
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+")


@dataclass(frozen=True)
class Prose:
    """The sentences of one text, as they are counted."""

    sentences: tuple[str, ...]

    @property
    def lengths(self) -> list[int]:
        return [words(sentence) for sentence in self.sentences]

    @property
    def mean(self) -> float:
        """Words a sentence; 0 where there is none."""
        return sum(self.lengths) / max(1, len(self.sentences))

    @property
    def long(self) -> float:
        """Share of the sentences that have more than 30 words."""
        return sum(n > LONG for n in self.lengths) / max(1, len(self.sentences))


def words(sentence: str) -> int:
    """What holds a letter or a digit; punctuation and dashes by themselves are no words."""
    return sum(any(c.isalnum() for c in word) for word in sentence.split())


def sentences_of(text: str) -> Prose:
    """The sentences of a Markdown text, in their order."""
    found = [sentence for paragraph in _paragraphs(text) for sentence in _split(paragraph)]
    return Prose(tuple(sentence for sentence in found if words(sentence)))


def _paragraphs(text: str) -> Iterable[str]:
    """Paragraphs and list items, each on one line; what is no prose is left out."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^(```|~~~).*?^\1[^\n]*$", "\n", text, flags=re.DOTALL | re.MULTILINE)
    paragraph: list[str] = []
    in_list = False
    for line in [*text.splitlines(), ""]:
        item, blank = _ITEM.match(line), not line.strip()
        indented = line.startswith(("    ", "\t")) and not in_list and not paragraph
        apart = line.lstrip().startswith(("|", "#", ":::", "!!!", "???", "---")) or indented
        if (item or blank or apart) and paragraph:
            yield " ".join(paragraph)
            paragraph = []
        if item:
            in_list = True
            paragraph.append(line[item.end() :].strip())
        elif not blank and not apart:
            in_list = in_list and line.startswith(" ")
            paragraph.append(line.strip())


def _split(paragraph: str) -> list[str]:
    """One paragraph in sentences, without marks of links, pictures and code."""
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", paragraph)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"``?[^`]+``?", "code", text)
    text = _ABBREVIATIONS.sub(lambda found: found[0].replace(".", ""), text).replace("*", "")
    return re.split(r"(?<=[.!?])[\"”’)]*\s+(?=[\"“‘(]*[A-ZÀ-Þ0-9]|code\b)", text)


def documents(root: Path = ROOT) -> list[Path]:
    """README and docs that are held to the measure."""
    found = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [path for path in found if not path.relative_to(root).as_posix().startswith(LEFT_OUT)]


def measured(paths: Iterable[Path]) -> list[tuple[str, Prose]]:
    """Each file by its name, and all of them together as the last."""
    each = [(path, sentences_of(path.read_text(encoding="utf-8"))) for path in paths]
    names = [(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path).as_posix() for path, _ in each]
    everything = Prose(tuple(sentence for _, prose in each for sentence in prose.sentences))
    return [*zip(names, (prose for _, prose in each), strict=True), ("all", everything)]


def table(rows: Iterable[tuple[str, Prose]]) -> str:
    lines = [f"| file | sentences | words a sentence | over {LONG} words |", "|---|---|---|---|"]
    lines += [f"| {name} | {len(p.sentences)} | {p.mean:.1f} | {p.long:.0%} |" for name, p in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="Markdown files; README and docs without any")
    parser.add_argument("--long", action="store_true", help="also print the sentences that are too long")
    arguments = parser.parse_args()
    rows = measured([path.resolve() for path in arguments.files] or documents())
    print(table(rows))
    if arguments.long:
        for name, prose in rows[:-1]:
            for sentence, n in zip(prose.sentences, prose.lengths, strict=True):
                if n > LONG:
                    print(f"\n{name}: {n} words: {sentence}")


if __name__ == "__main__":
    main()
