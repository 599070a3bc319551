"""One row of a published evaluation set as (question, right answer), without the frame of a prompt.

Functions raise KeyError, IndexError, TypeError or ValueError on a row that is not as it is published.
"""

from __future__ import annotations

import json
import re
from typing import Any

Row = dict[str, Any]
QuestionAnswer = tuple[str, str]

BESIDE = "\0beside"
"""The key under which a row holds what another file says of it."""

_FRAME_BEFORE = re.compile(r"\A\s*(?:Question|Q|Context|Passage):\s*")
_FRAME_AFTER = re.compile(r"\s*(?:\b(?:Answer|Output|A):)?\s*\Z")
_QUESTION = re.compile(r"(?:\A|\n)\s*Question:\s*")
_CHOICES = re.compile(r"\n(?:Choices:\s*\n)?(?=A\. )")
_CHOICE = re.compile(r"^([A-Z])\. (.*)$", re.MULTILINE)
CALCULATION = re.compile(r"<<[^<>]*>>")
"""GSM8K's calculator annotations."""
_LETTER = re.compile(r"\A[A-Z]\s*\)\s*")


def core(row: Row) -> QuestionAnswer:
    """Rows of the CORE bundle: multiple choice, a continuation, a schema with options, an answer or a program."""
    if "context_options" in row:
        return "", f"{row['context_options'][row['gold']]} {row['continuation']}"
    if "canonical_solution" in row:
        return row["prompt"], row["canonical_solution"]
    question = row.get("query", row.get("question")) if "choices" in row else row["context"]
    if question is None:
        raise KeyError("query")
    choices, answer = "", row.get("continuation", row.get("answer"))
    if "choices" in row:
        question, *rest = _CHOICES.split(question, maxsplit=1)
        choices, answer = "".join(rest), row["choices"][row["gold"]]
    # The answer may be a letter that stands for what the question lists.
    answer = dict(_CHOICE.findall(choices)).get(answer, answer)
    if not isinstance(answer, str):
        raise KeyError("answer")
    question = _FRAME_AFTER.sub("", _FRAME_BEFORE.sub("", question))
    return _QUESTION.sub("\n", question).strip(), answer.strip()


def core_from_passage(row: Row) -> QuestionAnswer:
    """As `core`, of a question that follows the passage that answers it: the last question alone."""
    key = "query" if "query" in row else "context"
    question: str = row[key]
    parts = _QUESTION.split(question)
    return core({**row, key: parts[-1]})


def aqua(row: Row) -> QuestionAnswer:
    """The rationale says more than the answer, but is seldom copied: it is left out."""
    return row["question"], _LETTER.sub("", row["options"]["ABCDE".index(row["correct"])])


def bfcl(row: Row) -> QuestionAnswer:
    """User turns and the gold calls; tools are shared by many items and left out."""
    turns = [message["content"] for turn in row["question"] for message in turn if message["role"] == "user"]
    gold = row.get(BESIDE)
    return "\n".join(turns), json.dumps(gold["ground_truth"], ensure_ascii=False) if gold else ""


def commonsense_qa(row: Row) -> QuestionAnswer:
    """The published form, with labelled choices."""
    question = row["question"]
    return question["stem"], {choice["label"]: choice["text"] for choice in question["choices"]}[row["answerKey"]]


def gsm8k(row: Row) -> QuestionAnswer:
    """The worked answer without the calculator's annotations and the final mark."""
    return row["question"], CALCULATION.sub("", row["answer"]).replace("####", "")


def math(row: Row) -> QuestionAnswer:
    """MATH: problem and final answer."""
    return row["problem"], row["answer"]


def mbpp(row: Row) -> QuestionAnswer:
    """The task and its program."""
    return row["text"], row["code"]


def mmlu(row: Row) -> QuestionAnswer:
    """question, four choices, letter."""
    question, *choices, letter = row["cells"]
    if len(choices) != 4:
        raise ValueError(f"{len(row['cells'])} cells, not 6")
    return question, choices["ABCD".index(letter)]


def piqa(row: Row) -> QuestionAnswer:
    """The goal and the right of two solutions, by the label in the other file."""
    return row["goal"], (row["sol1"], row["sol2"])[int(row[BESIDE])]


def plain(row: Row) -> QuestionAnswer:
    """A line of running text; blank lines and headings (= Title =) are no items."""
    text: str = row["text"].strip()
    return "", "" if text.startswith("=") and text.endswith("=") else text


def svamp(row: Row) -> QuestionAnswer:
    """Story and question; the answer as it is usually written, 51 for 51.0."""
    return f"{row['Body']} {row['Question']}", f"{row['Answer']:.15g}"


def turns(row: Row) -> QuestionAnswer:
    """Questions without an answer."""
    return "\n".join(row["turns"]), ""


def winogrande(row: Row) -> QuestionAnswer:
    """The sentence with the right option in its gap."""
    return "", row["sentence"].replace("_", row[f"option{int(row['answer'])}"])
