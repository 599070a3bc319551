"""Folders and patterns of files: links, loops of links, and what gradus wrote itself."""

import glob
from pathlib import Path

import pytest

from gradus.core.patterns import files_below, files_matching


def _write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def _names(files: list[Path], folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in files]


@pytest.mark.parametrize(
    "pattern",
    ["**/*.txt", "**", "*.txt", "*/*.txt", "**/b/*", "a/**/*.txt", "?/**/[cd].txt", "**/**/d.txt", "**/b/**/*.txt",
     ".h/*.txt", "**/.h/*.txt", "e e/**", "[[]x[]]/*.txt", "none/**/*.txt"],
)  # fmt: skip
def test_without_links_the_files_are_those_of_glob(tmp_path: Path, pattern: str) -> None:
    _write(
        tmp_path, "c.txt", "a/c.txt", "a/b/d.txt", "a/b/b/d.txt", ".h/x.txt", "e e/f 🦊.txt", "[x]/y.txt", "a/.z.txt"
    )
    there = sorted({Path(p) for p in glob.glob(str(tmp_path / pattern), recursive=True) if Path(p).is_file()})
    assert files_matching(tmp_path / pattern) == there


def test_a_link_that_leads_back_is_not_followed(tmp_path: Path) -> None:
    # One gave 40 names to each file and an error about a wrong one of them; two never came to an end.
    _write(tmp_path, "texts/a.txt", "texts/sub/b.txt", "beside/c.txt")
    for name, target in (("up", ".."), ("here", "."), ("sub/top", "../..")):
        (tmp_path / "texts" / name).symlink_to(target)
    expected = ["texts/a.txt", "texts/sub/b.txt"]
    assert _names(files_matching(tmp_path / "texts/**/*.txt"), tmp_path) == expected
    assert _names(files_below(tmp_path / "texts"), tmp_path) == expected


def test_a_link_to_a_folder_elsewhere_is_followed_and_no_folder_comes_twice(tmp_path: Path) -> None:
    _write(tmp_path, "other/disk/a.txt", "texts/b/c.txt")
    (tmp_path / "texts/a_link").symlink_to("b")
    (tmp_path / "texts/linked").symlink_to(tmp_path / "other")
    (tmp_path / "texts/gone").symlink_to("nowhere")
    expected = ["texts/b/c.txt", "texts/linked/disk/a.txt"]
    assert _names(files_below(tmp_path / "texts"), tmp_path) == expected
    assert _names(files_matching(tmp_path / "texts/**/*.txt"), tmp_path) == expected


def test_what_gradus_wrote_is_read_only_where_it_is_named(tmp_path: Path) -> None:
    # The folder of a roadmap is the home too: its corpus would be made of what the last walk left, and change with it.
    made = ("artifacts/corpus-1/drops/0.jsonl", "runs/x/ledger.jsonl", "raw/d.jsonl", ".dry-run-1/artifacts/m.jsonl")
    _write(tmp_path, "mine.jsonl", "sub/runs/mine.jsonl", "artifacts/.lock", *made)
    mine = ["mine.jsonl", "sub/runs/mine.jsonl"]
    assert _names([f for f in files_below(tmp_path) if f.suffix == ".jsonl"], tmp_path) == mine
    assert _names(files_matching(tmp_path / "**/*.jsonl"), tmp_path) == mine
    assert _names(files_matching(tmp_path / "*/*/*.jsonl"), tmp_path) == ["sub/runs/mine.jsonl"]
    for pattern in ("artifacts/*/drops/*.jsonl", "artifacts/**/*.jsonl"):
        assert _names(files_matching(tmp_path / pattern), tmp_path) == [made[0]]
    assert _names(files_below(tmp_path / "runs"), tmp_path) == [made[1]]
