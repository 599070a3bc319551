"""What is passed on names no folder of this machine and no address beyond its host."""

import pytest

from gradus.core.privacy import shown


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("https://someone:key@llm.inside.example:8443/v1?token=a", "llm.inside.example"),
        ("http://10.0.0.5:8000/v1", "10.0.0.5"),
        ("http://[::1]:8000/v1", "::1"),
        ("https://example.org/sets/list.jsonl?Signature=abc", "example.org: list.jsonl"),
        ("s3://bucket/inside/model", "bucket"),
        ("file:///home/me/backup", "backup"),
        ("https://huggingface.co/datasets/owner/name", "https://huggingface.co/datasets/owner/name"),
        ("https://hf_key@huggingface.co/datasets/owner/name", "https://huggingface.co/datasets/owner/name"),
        ("https://github.com/owner/name?token=abc#more", "https://github.com/owner/name"),
        ("https://someone:k.ey@llm.inside.example:8443", "llm.inside.example"),
        ("http://10.0.0.5:8000/", "10.0.0.5"),
        ("http://[broken", "an address"),
        ("https://someone:k.ey@[broken", "an address"),
        ("folder:~/models/small-qwen3/", "small-qwen3"),
        ("/home/me/my books/**/*.txt", "*.txt"),
        ("~somebody/x.jsonl", "x.jsonl"),
        ("../secret/chats.jsonl", "chats.jsonl"),
        ("books/*.txt", "books/*.txt"),
        ("hub:owner/name@main", "hub:owner/name@main"),
        ("~5 km/h is slow", "~5 km/h is slow"),
        ("a sentence of https://example.org/x", "a sentence of https://example.org/x"),
        ("see https://someone:key@example.org/x", "see https://example.org/x"),
    ],
)
def test_paths_become_names_and_addresses_hosts(written: str, seen: str) -> None:
    assert shown(written) == seen
    assert shown({"deep": [{"base_url": written}], written: 3, "n": None}) == {
        "deep": [{"base_url": seen}],
        seen: 3,
        "n": None,
    }


def test_entries_whose_names_become_the_same_are_all_kept() -> None:
    assert shown({"/a/*.txt": 1, "/b/*.txt": 2, "~/c/*.txt": 3}) == {"*.txt": 1, "*.txt (2)": 2, "*.txt (3)": 3}
