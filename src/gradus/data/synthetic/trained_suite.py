"""Writes probe suite (a): the wordings of training with problems that training never sees.

    python -m gradus.data.synthetic.trained_suite roadmaps/probes/trained.jsonl

The file is kept in the repository, so that a suite does not change together with the templates unnoticed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from gradus.core.files import write_atomic
from gradus.data.synthetic.config import ConversationSettings
from gradus.data.synthetic.conversations import probe_items

DEFAULT_PER_CATEGORY = 120
DEFAULT_SEED = 20


def suite_text(per_category: int, seed: int) -> str:
    """The suite as JSON lines, for the default persona."""
    rows = probe_items(ConversationSettings(), seed, per_category)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the probe suite of trained wordings.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--per-category", type=int, default=DEFAULT_PER_CATEGORY)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    options = parser.parse_args(arguments)
    text = suite_text(options.per_category, options.seed)
    write_atomic(options.path, text)
    sys.stdout.write(f"{options.path}: {text.count(chr(10))} probes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
