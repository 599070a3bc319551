"""MT-bench: 80 questions of two turns each, and what a judge is shown of the answers. Without torch.

Each answer is rated by itself, from 1 to 10; of mathematics, reasoning and code beside a reference answer. Source of
the protocol and of the judge's prompts: Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena",
sections 3 and 4 and appendix A; temperatures by category as in its code. Scores by different judges cannot be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gradus.conversation.messages import Message
from gradus.core.errors import DataError
from gradus.data.benchmark_rows import Row
from gradus.data.benchmarks import benchmark_rows, json_rows, read_row, row_files
from gradus.eval.tasks import Limit, evenly_spread

MT_BENCH = "mt_bench"
REFERENCES = "multiturn/mt_bench_reference_answer_gpt-4.jsonl"
TURNS = 2
TEMPERATURES = {
    "writing": 0.7, "roleplay": 0.7, "extraction": 0.0, "math": 0.0, "coding": 0.0, "reasoning": 0.0, "stem": 0.1,
    "humanities": 0.1,
}  # fmt: skip
NEEDS_REFERENCE = ("math", "reasoning", "coding")

_IMPARTIAL = (
    "Please act as an impartial judge and evaluate the quality of the response provided by an AI assistant to the user "
    "question displayed below."
)
_FACTORS = (
    "Your evaluation should consider factors such as the helpfulness, relevance, accuracy, depth, creativity, and "
    "level of detail of the response."
)
_CORRECT = "Your evaluation should consider correctness and helpfulness."
_EXPLAIN = "Begin your evaluation by providing a short explanation."
_COMPARE = (
    "Begin your evaluation by comparing the assistant's answer with the reference answer. Identify and correct any "
    "mistakes."
)
_SECOND = "You evaluation should focus on the assistant's answer to the second user question."  # as published
_RATE = (
    "Be as objective as possible. After providing your explanation, you must rate the response on a scale of 1 to 10 "
    'by strictly following this format: "[[rating]]", for example: "Rating: [[5]]".'
)


@dataclass(frozen=True, slots=True)
class MtQuestion:
    """turns: two messages of a user; references: an answer to each, none where the category needs none."""

    id: str
    category: str
    turns: tuple[str, str]
    references: tuple[str, str] | None = None


def mt_bench_questions(folder: Path | None, limit: Limit = None) -> list[MtQuestion]:
    """The questions, at most `limit`. Errors: DataError for files that are missing or wrong."""
    rows = list(benchmark_rows(MT_BENCH, folder))
    if not rows:
        raise DataError(f'task "{MT_BENCH}": its file holds no item; fetch it again')
    references = _references(folder) if folder is not None else {}
    found = []
    for number in evenly_spread(len(rows), limit):
        category, turns = read_row(MT_BENCH, rows[number], _read)
        told = references.get(rows[number].id) if category in NEEDS_REFERENCE else None
        if category in NEEDS_REFERENCE and told is None:
            raise DataError(f"{REFERENCES}: no reference answer to question {rows[number].id}; fetch the file again")
        found.append(MtQuestion(rows[number].id, category, turns, told))
    return found


def mt_bench_files(folder: Path | None) -> list[Path]:
    """Questions and references. Errors: DataError."""
    questions = row_files(MT_BENCH, folder)
    assert folder is not None
    return [*questions, _references_file(folder)]


def judge_prompts(question: MtQuestion, answers: Sequence[str]) -> list[tuple[Message, ...]]:
    """What the judge is shown of the first answer, and of the second."""
    return [_first_prompt(question, answers[0]), _second_prompt(question, answers)]


def _first_prompt(question: MtQuestion, answer: str) -> tuple[Message, ...]:
    factors, begin, reference = f"{_FACTORS} {_EXPLAIN}", "", ""
    if question.references is not None:
        factors = f"{_CORRECT} You will be given a reference answer and the assistant's answer. {_COMPARE}"
        reference = f"[The Start of Reference Answer]\n{question.references[0]}\n[The End of Reference Answer]\n\n"
    begin = f"[Instruction]\n{_IMPARTIAL} {factors} {_RATE}"
    shown = f"[The Start of Assistant's Answer]\n{answer}\n[The End of Assistant's Answer]"
    return (
        Message("system", "You are a helpful assistant."),
        Message("user", f"{begin}\n\n[Question]\n{question.turns[0]}\n\n{reference}{shown}"),
    )


def _second_prompt(question: MtQuestion, answers: Sequence[str]) -> tuple[Message, ...]:
    system = f"{_IMPARTIAL} {_FACTORS} {_SECOND} {_EXPLAIN} {_RATE}"
    shown = _dialogue("Assistant A's Conversation with User", "Assistant A", question.turns, answers)
    if question.references is not None:
        system = (
            f"{_IMPARTIAL} {_CORRECT} You will be given a reference answer and the assistant's answer. {_SECOND} "
            f"{_COMPARE} {_RATE}"
        )
        told = _dialogue("Reference Answer", "Reference answer", question.turns, question.references)
        shown = f"{told}\n\n\n{shown}"
    return Message("system", system), Message("user", shown)


def _dialogue(title: str, speaker: str, turns: Sequence[str], answers: Sequence[str]) -> str:
    said = "\n\n".join(
        f"### User:\n{asked}\n\n### {speaker}:\n{answer}" for asked, answer in zip(turns, answers, strict=True)
    )
    return f"<|The Start of {title}|>\n\n{said}\n\n<|The End of {title}|>"


def _read(row: Row) -> tuple[str, tuple[str, str]]:
    first, second = row["turns"]
    if row["category"] not in TEMPERATURES:
        raise ValueError(f"category {row['category']}")
    return row["category"], (first, second)


def _references_file(folder: Path) -> Path:
    path = folder / REFERENCES
    packed = path.with_name(f"{path.name}.gz")
    if not path.is_file() and not packed.is_file():
        raise DataError(f'task "{MT_BENCH}": no file {REFERENCES} (or .gz) in {folder}; put it there')
    return path if path.is_file() else packed


def _references(folder: Path) -> dict[str, tuple[str, str]]:
    found = {}
    path = _references_file(folder)
    for number, row in json_rows(path):
        try:
            first, second = row["choices"][0]["turns"]
            found[str(row["question_id"])] = (first, second)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}:{number}: not a reference answer as it is published ({type(error).__name__}: {error}); "
                "fetch the file again"
            ) from error
    return found
