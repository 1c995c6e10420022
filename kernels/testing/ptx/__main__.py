"""python -m ptx IN.ptx OUT.cc: exit status 1 and one line on stderr if anything is unknown."""

from __future__ import annotations

import sys
from pathlib import Path

from . import PtxError, parse_module, translate


def main(source: str, target: str) -> int:
    try:
        text = translate(parse_module(Path(source).read_text()), source=Path(source).name)
    except PtxError as error:
        print(f"ptx: {error}", file=sys.stderr)
        return 1
    Path(target).write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
