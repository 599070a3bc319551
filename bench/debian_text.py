"""Real technical English for the data benchmarks: the text of Debian's documentation packages, as JSON lines.

Downloads the packages with apt (no root needed), unpacks them and writes {"text", "id", "url"} a line, one file a
package. The text stays under each package's own licence and is not part of this repository.

    python bench/debian_text.py --out ../bench-data/debian
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

PACKAGES = (
    "linux-doc-6.1",
    "python3.11-doc",
    "postgresql-doc-15",
    "debian-handbook",
    "debian-policy",
    "developers-reference",
    "git-doc",
    "libboost1.74-doc",
    "libgtk-3-doc",
    "libglib2.0-doc",
    "mercurial-common",
    "openjdk-17-doc",
    "php-doc",
    "python-django-doc",
    "python-numpy-doc",
    "python-scipy-doc",
    "python-sympy-doc",
    "python-pandas-doc",
    "python-matplotlib-doc",
    "r-doc-html",
    "rust-doc",
    "sqlite3-doc",
    "valgrind",
    "zsh-doc",
)
_LEAST_CHARACTERS = 200
_BLOCKS = frozenset(
    (
        *(
            "address",
            "article",
            "blockquote",
            "br",
            "dd",
            "div",
            "dl",
            "dt",
            "figcaption",
            "hr",
            "li",
            "main",
            "ol",
            "p",
        ),
        *("h1", "h2", "h3", "h4", "h5", "h6", "pre", "section", "table", "td", "th", "tr", "ul"),
    )
)
_HIDDEN = frozenset(["script", "style", "nav", "header", "footer", "head", "form", "button", "svg"])


class _Text(HTMLParser):
    """The readable text of a page: no scripts, styles or navigation; line breaks where blocks begin and end."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._pieces: list[str] = []
        self._hidden = 0
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in _HIDDEN
        self._preformatted += tag == "pre"
        if tag in _BLOCKS:
            self._pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in _HIDDEN))
        self._preformatted = max(0, self._preformatted - (tag == "pre"))
        if tag in _BLOCKS:
            self._pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._pieces.append(data if self._preformatted else re.sub(r"\s+", " ", data))

    def text(self) -> str:
        return re.sub(r"\n\s*\n+", "\n\n", "".join(self._pieces)).strip()


def page_text(content: str) -> str:
    """The text of an HTML page."""
    parser = _Text()
    parser.feed(content)
    parser.close()
    return parser.text()


def documents(root: Path) -> Iterator[tuple[str, str]]:
    """(path below `root`, text) of every readable page and text file."""
    for path in sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink()):
        name = path.name.removesuffix(".gz")
        if not name.endswith((".html", ".htm", ".txt", ".md", ".rst")):
            continue
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = content.decode("utf-8", "replace")
        yield str(path.relative_to(root)), page_text(text) if name.endswith((".html", ".htm")) else text.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("packages", nargs="*", default=list(PACKAGES))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    total = 0
    for package in arguments.packages:
        with tempfile.TemporaryDirectory() as scratch:
            got = subprocess.run(["apt-get", "download", package], cwd=scratch, capture_output=True, text=True)
            archives = list(Path(scratch).glob("*.deb"))
            if got.returncode or not archives:
                print(f"{package}: not to be had ({got.stderr.strip().splitlines()[-1:]})")
                continue
            subprocess.run(["dpkg-deb", "-x", str(archives[0]), scratch + "/x"], check=True)
            count = size = 0
            with (arguments.out / f"{package}.jsonl").open("w", encoding="utf-8") as file:
                for name, text in documents(Path(scratch) / "x"):
                    if len(text) >= _LEAST_CHARACTERS:
                        record = {
                            "text": text,
                            "id": f"{package}/{name}",
                            "url": f"https://packages.debian.org/bookworm/{package}/{name}",
                        }
                        file.write(json.dumps(record, ensure_ascii=False) + "\n")
                        count, size = count + 1, size + len(text)
        total += size
        print(f"{package} ({archives[0].name}): {count:,} documents, {size / 1e6:.1f} MB", flush=True)
    print(f"{total / 1e6:.1f} MB in all")


if __name__ == "__main__":
    main()
