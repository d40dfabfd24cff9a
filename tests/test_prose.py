"""README and docs are easy to read, as far as that can be counted."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import prose

EXAMPLE = """# A heading is not prose

Two words. This sentence has five words.
It goes on, e.g. here, to [a link of five words](page.md)
and `code that is one word`; done!

    code in a block does not count

- an item
- another item, which goes on
  in the next line. It has two sentences.

| a | table |
|---|---|

```
nor does this. It has no words.
```
"""


def test_sentences_counted_by_hand():
    found = prose.sentences_of(EXAMPLE)
    assert found.lengths == [2, 5, 14, 2, 9, 4]
    assert found.mean == pytest.approx(36 / 6)
    assert found.long == 0


def test_more_than_thirty_words_are_long():
    text = f"{'word ' * 29}end.\n\n{'word ' * 30}end.\n"
    assert prose.sentences_of(text).lengths == [30, 31]
    assert prose.sentences_of(text).long == 1 / 2


def test_what_is_left_out_is_evidence_notes_and_written_pages():
    names = {path.name for path in prose.documents()}
    assert {"README.md", "tutorial.md", "method.md"} <= names
    assert not names & {"evidence.md", "trials.md", "commands.md", "settings.md"}


def test_readme_and_docs_have_short_sentences():
    *_, (_, everything) = rows = prose.measured(prose.documents())
    assert everything.mean <= 18, prose.table(rows)
    assert everything.long <= 0.10, prose.table(rows)


def test_the_readme_fits_on_two_screens():
    assert len((prose.ROOT / "README.md").read_text("utf-8").splitlines()) <= 110
