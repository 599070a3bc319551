"""Multiple choice through the chat format: the model is asked for a letter, and the likeliest of the letters counts.

The question, the choices and what to answer stand in one message of the user; the letters' log-likelihoods are taken
where the answer begins, without thinking. The wording is nanochat's, whose ChatCORE is published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradus.conversation.formats.wire import Format
from gradus.conversation.messages import Conversation, Message
from gradus.data.benchmark_rows import Row
from gradus.data.benchmarks import benchmark_rows, read_row
from gradus.eval import task_items
from gradus.eval.asked import Asked, Continuation
from gradus.eval.tasks import MMLU_EXAMPLES, MMLU_TEST, Limit, evenly_spread

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, slots=True)
class Choice:
    """A question with its choices. gold: number of the right one."""

    question: str
    choices: Sequence[str]
    gold: int

    @property
    def prompt(self) -> str:
        """The user's message. Errors: ValueError for a right choice that is none, or more choices than letters."""
        if not 0 <= self.gold < len(self.choices) <= len(LETTERS):
            raise ValueError(f"answer {self.gold} of {len(self.choices)} choices")
        # The letter stands behind the choice, without a space, so that it is the token that is to be answered.
        listed = "".join(f"- {choice}={letter}\n" for choice, letter in zip(self.choices, LETTERS, strict=False))
        asked = "Respond only with the letter of the correct answer."
        return f"Multiple Choice question: {self.question}\n{listed}\n{asked}"


@dataclass(frozen=True)
class LetterTask:
    """A benchmark. set: of `BENCHMARKS`; file: its evaluation split; examples: of worked examples.

    by_subject: examples are those of the item's own subject.
    """

    set: str
    choice: Callable[[Row], Choice]
    file: str
    examples: str
    by_subject: bool = False


def _arc(row: Row) -> Choice:
    return Choice(row["question"], row["choices"], row["gold"])


def _mmlu(row: Row) -> Choice:
    item = task_items.mmlu(row)  # which checks the cells
    return Choice(row["cells"][0], row["cells"][1:5], item.gold)


LETTER_TASKS: dict[str, LetterTask] = {
    "chatcore.arc_easy": LetterTask("arc_easy", _arc, "arc/arc_easy_test.jsonl", "arc/arc_easy_train.jsonl"),
    "chatcore.arc_challenge": LetterTask(
        "arc_challenge", _arc, "arc/arc_challenge_test.jsonl", "arc/arc_challenge_train.jsonl"
    ),
    "chatcore.mmlu": LetterTask("mmlu", _mmlu, MMLU_TEST, MMLU_EXAMPLES, by_subject=True),
}


def letter_choices(name: str, folder: Path | None, limit: Limit = None) -> list[tuple[str, Choice]]:
    """(id, question) of a task's items, at most `limit`. Errors: DataError for files that are missing or wrong."""
    task = LETTER_TASKS[name]
    rows = list(benchmark_rows(task.set, folder, task.file))
    return [(rows[n].id, read_row(task.set, rows[n], task.choice)) for n in evenly_spread(len(rows), limit)]


def asked_letters(
    name: str, form: Format, folder: Path | None, limit: Limit, *, shots: int, multiturn: bool, think: bool | None
) -> list[Asked]:
    """The items in tokens: one question, and a letter for each choice.

    shots, multiturn: worked examples as `with_examples` has them. think: False begins the answer with an empty think
    block, as a model is asked that has learned to think and shall not; anything else leaves it out.
    """
    task = LETTER_TASKS[name]
    examples: dict[str, list[tuple[str, str]]] = {}
    if shots:
        for row in benchmark_rows(task.set, folder, task.examples):
            found = examples.setdefault(task_items.mmlu_subject(row.id) if task.by_subject else "", [])
            if len(found) < shots:
                choice = read_row(task.set, row, task.choice)
                found.append((choice.prompt, LETTERS[choice.gold]))
    asked = []
    for key, choice in letter_choices(name, folder, limit):
        told = examples.get(task_items.mmlu_subject(key) if task.by_subject else "", [])
        *earlier, last = with_examples(choice.prompt, told, multiturn)
        ids = form.render_prompt(Conversation((*earlier, last)), False if think is False else None).tolist()
        letters = LETTERS[: len(choice.choices)]
        question = tuple(Continuation(ids, form.tokenizer.encode(letter)) for letter in letters)
        asked.append(
            Asked(key, last.content, tuple(choice.choices), question, tuple(map(len, choice.choices)), choice.gold)
        )
    return asked


def with_examples(prompt: str, examples: Sequence[tuple[str, str]], multiturn: bool) -> tuple[Message, ...]:
    """The messages of a question behind worked examples, (prompt, answer) each.

    multiturn: each example is a message of the user and an answer of the assistant; otherwise all stand in the one
    message of the user.
    """
    if multiturn:
        turns = [(Message("user", asked), Message("assistant", answer)) for asked, answer in examples]
        return (*(message for turn in turns for message in turn), Message("user", prompt))
    told = "".join(f"{asked}\n\n{answer}\n\n" for asked, answer in examples)
    return (Message("user", told + prompt),)
