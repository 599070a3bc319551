"""Artifacts in texts: each pattern on what it must find and on what it must leave alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.conversation.artifacts import ARTIFACTS, find_artifacts, without_code

FOUND = {
    "html_tag": [
        "<b>Bold</b> text",
        "word</b>",
        "a line<br/>and <BR>",
        '<span style="color:red">red',
        "<h3 class='x' id=y>Title",
    ],
    "stock_label": [
        "Answer: 5",
        "The answer: 5",
        "**Final Answer:** 7",
        "### Response:\nHello",
        "Well.\n  Assistant: hi",
        "_Output_: 3",
    ],
    "image_placeholder": [
        "![a cat]()",
        "![a cat](image)",
        "![a cat]",
        "Look: [image]",
        "<image>",
        "[Insert image here]",
        "[Image: a cat on a mat]",
    ],
    "emoji_run": ["😀😀😀", "👨‍👩‍👧 👍🏽 🇫🇷", "1️⃣2️⃣3️⃣", "❤️❤️❤️", "🫠🫡🫶"],
    "hedge": [
        "As an AI language\nmodel, I",
        "AS A LARGE LANGUAGE MODEL",
        "I’m just an AI",
        "I am an AI language model",
        "I don’t have personal opinions",
        "As of my last update",
        "It's important to note that",
    ],
    "refusal": [
        "I’m sorry, but I can’t help with that",
        "I cannot fulfil this",
        "I'm unable to provide",
        "I won't be able to assist with it",
    ],
    "repeated_line": ["no\nno\nno", "yes, sir\n\nyes, sir\n \n yes, sir"],
    "loop": ["so it is " * 5, "the " * 12, "ha" * 12, "谢谢" * 12],
}
CLEAN = [
    "a<b and b>c, so a<c",
    "if a<b>c: pass",
    "Vec<i> of numbers",
    "Press `<b>` for bold, and ``x ` <i>`` too",
    "```html\n<b>x</b>\nAnswer: 1\n```\nDone.",
    "~~~\n<b>\n```\n<i>\n~~~",
    "    Use:\n   ```\n<b>never closed",
    "So the answer is: 5",
    "Humans: a history",
    "Instructions:\n1. Boil water",
    "![a cat](https://example.com/cat.png) and ![b](cats/b.jpg)",
    "[image](https://example.com)",
    "the image here",
    "😀😀 and © ® ™",
    "123 456",
    "I'm a language model made by the gradus team.",
    "I can't wait to see you",
    "I'm sorry to hear that",
    "no\nno\nnot yet",
    "---\n---\n---",
    "ha ha ha ha",
    "1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0",
    "1000000000000000000",
    "",
]


def test_every_kind_has_examples() -> None:
    assert FOUND.keys() == ARTIFACTS.keys()


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_each_kind_finds_what_it_names(kind: str, text: str) -> None:
    found = find_artifacts(text, (kind,))
    assert found, text
    assert all(item.excerpt == text[item.start : min(item.end, item.start + 80)] for item in found)


@pytest.mark.parametrize("text", CLEAN)
def test_sound_texts_and_code_have_no_artifact(text: str) -> None:
    assert find_artifacts(text) == []


def test_a_fence_is_closed_by_its_own_kind_only_and_what_follows_counts_again() -> None:
    text = "````md\n```\n<b>\n```\n````\n<i>after</i>"
    assert [item.excerpt for item in find_artifacts(text)] == ["<i>", "</i>"]


def test_three_backticks_in_a_line_are_no_block() -> None:
    assert [item.kind for item in find_artifacts("```<b>``` is a tag.\nAnswer: yes")] == ["stock_label"]


def test_inline_code_does_not_cross_a_blank_line() -> None:
    assert [item.kind for item in find_artifacts("a lone ` tick\n\nAnswer: 3 and another `")] == ["stock_label"]


def test_a_loop_is_reported_once_with_its_whole_stretch() -> None:
    text = "Well, I think so. " + "It is what it is and " * 6 + "that is all."
    found = find_artifacts(text)
    assert [item.kind for item in found] == ["loop"]
    assert text[found[0].start : found[0].end].count("what it is") == 6


@given(st.text(alphabet="`~<b>/\n #*:aA! []()1😀", max_size=80))
def test_blanked_code_keeps_every_position_and_is_blanked_once(text: str) -> None:
    blanked = without_code(text)
    assert len(blanked) == len(text)
    assert all(a in (b, " ") for a, b in zip(blanked, text, strict=True))
    found = find_artifacts(text)
    assert all(0 <= item.start < item.end <= len(text) and item.kind in ARTIFACTS for item in found)


@pytest.mark.parametrize(
    "part",
    [
        "<b ",
        "`",
        "` ",
        "a\n",
        "ab ",
        "![",
        "a b c d e ",
        "😀",
        ' x="1"',
        " ",
        "\n",
        "ab",
        "```\n",
        "(image of ",
        "i am ",
    ],
)
def test_hostile_repetition_takes_time_in_proportion_to_its_length(part: str) -> None:
    text = part * (60_000 // len(part))
    begin = time.thread_time()
    find_artifacts(text)
    assert time.thread_time() - begin < 15  # of quadratic time it would be minutes
