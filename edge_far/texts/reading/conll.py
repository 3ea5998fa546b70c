"""Tagged words as in the CoNLL shared tasks: a word a line, its tag in the last column, a blank line between texts.

Columns are separated by blanks or tabs; those in between (parts of speech, chunks) are not read. Lines that begin with
-DOCSTART- or with '#' and a blank are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edge_far.texts.reading.lines import Lines

__all__ = ["conll_records"]

_DOCUMENT, _COMMENT = "-DOCSTART-", "# "


def conll_records(lines: Lines) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the number of the first line of each text, and its record: `text` a list of words, `label` of tags.

    Words without a second column have no tags: the label is missing then, unless others of the text have one.
    """
    first, words, tags = 0, list[str](), list[str]()
    for line in lines:
        columns = line.split()
        if columns and not line.startswith((_DOCUMENT, _COMMENT)):
            first = first or lines.number
            words.append(columns[0])
            tags += columns[-1:] if len(columns) > 1 else []
        elif not columns and words:
            yield first, _record(words, tags)
            first, words, tags = 0, [], []
    if words:
        yield first, _record(words, tags)


def _record(words: list[str], tags: list[str]) -> Mapping[str, object]:
    return {"text": words, **({"label": tags} if tags else {})}
