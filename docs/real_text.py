"""Writes real-text.md from a finished walk of roadmaps/prose.toml: its figures, and its replies as they came.

Run `python docs/real_text.py HOME`, where HOME holds runs/prose.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SUITE = FOLDER.parent / "roadmaps" / "probes" / "everyday.toml"

PAGE = """# Real text

`roadmaps/prose.toml` trains on {megabytes:.0f} MB of books, textbooks, speeches, specifications and web pages, then on
{conversations:,} instructions and conversations of people. It is the same path as quickstart's with other sources, and
nothing in it is made from templates. The texts are not part of this repository: point `GRADUS_DATA` at a folder that
holds them, or name your own files (see [Your own text](your-text.md)).

```sh
make prose
```

{cores} took {pretrain_minutes:.0f} minutes for {tokens:.1f} M tokens of pretraining ({rate:,.0f} tokens a second) and
{sft_minutes:.0f} minutes for fine-tuning. The model has {parameters:.1f} M parameters, a vocabulary of {vocabulary:,}
and a context of {context} tokens.

## Bits per byte

On documents that were held back, at the end of pretraining. Lower is better; the figures do not depend on the
tokenizer. {outlier}

| source | bits per byte |
|---|---|
{bpb}

## Twenty replies, unedited

Sampled once at temperature 0.7, in the order of `roadmaps/probes/everyday.toml`, nothing left out.
{minutes:.0f} minutes on two cores give a model that has the sound of English, holds on to the topic for a sentence, and
knows next to nothing: facts and sense take a hundred times the text and the time.

{replies}
"""


def main(home: Path) -> None:
    """Write the page."""
    run = home / "runs" / "prose"
    library, talk, base, chat = (_manifest(run / name) for name in ("library", "talk", "base", "chat"))
    (answers,) = (run / "replies" / "probes").glob("everyday.json")
    found = {item["id"]: item for item in json.loads(answers.read_text(encoding="utf-8"))["items"]}
    probes = tomllib.loads(SUITE.read_text(encoding="utf-8"))["probe"]
    results = base["results"]
    sources = {name: part["bpb"] for name, part in results["by_source"].items()}
    minutes = base["seconds"] / 60, chat["seconds"] / 60
    page = PAGE.format(
        megabytes=library["results"]["bytes"] / 1e6,
        conversations=talk["results"]["conversations"],
        cores="Two cores of a server processor",
        pretrain_minutes=minutes[0],
        sft_minutes=minutes[1],
        minutes=sum(minutes),
        tokens=results["tokens"] / 1e6,
        rate=results["tokens_per_second"],
        parameters=results["parameters"] / 1e6,
        vocabulary=results["model"]["vocab_size"],
        context=results["model"]["context"],
        outlier="The held-back `eips` are mostly test vectors in hexadecimal, which cannot be predicted: they\n"
        "weigh on the whole.",
        bpb="\n".join(f"| {name} | {value:.3f} |" for name, value in [*sources.items(), ("**all**", results["bpb"])]),
        replies="\n\n".join(_shown(probe, found[probe["id"]]) for probe in probes),
    )
    (FOLDER / "real-text.md").write_text(page, encoding="utf-8")


def _manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return found


def _shown(probe: dict[str, Any], item: dict[str, Any]) -> str:
    """The questions as they were asked, the last answer as a quotation."""
    asked = " / ".join(probe["turns"])
    answer = item["answer"].replace("\\", "\\\\").replace("<", "\\<")
    quoted = "\n".join(f"> {line}".rstrip() for line in answer.split("\n")) if answer.strip() else "> (nothing)"
    return f"**{asked}**\n\n{quoted}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
