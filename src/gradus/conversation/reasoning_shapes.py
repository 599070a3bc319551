"""Rows of questions with worked answers: reasoning beside the answer, solutions, choices, calculator marks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gradus.conversation.calculator_marks import CALCULATOR, RunTool, has_marks, worked_with_calls
from gradus.conversation.messages import Conversation, Message
from gradus.conversation.record_values import Row, answer_of, exchange, list_of, text_of, worked_solution


def from_reasoning(row: Row, run_tool: RunTool | None) -> Iterator[Conversation]:
    """{question, reasoning, answer}."""
    answer = Message("assistant", text_of(row["answer"]), text_of(row["reasoning"]) or None)
    yield exchange(text_of(row["question"]), answer, row)


def from_thinking_apart(row: Row, run_tool: RunTool | None) -> Iterator[Conversation]:
    """{problem, X, Y}: a model's thinking and its answer in columns of their own (DeepSeek R1's outputs)."""
    thinking = next(row[key] for key in ("message_thinking", "deepseek_reasoning") if key in row)
    answer = next(row[key] for key in ("message_content", "deepseek_solution") if key in row)
    yield exchange(text_of(row["problem"]), Message("assistant", text_of(answer), text_of(thinking) or None), row)


def from_question(row: Row, run_tool: RunTool | None) -> Iterator[Conversation]:
    """{question or problem, answer}, with calculator marks as calls (GSM8K)."""
    question, answer = text_of(row["question"] if "question" in row else row["problem"]), text_of(row["answer"])
    if has_marks(answer):
        messages = worked_with_calls(question, answer, run_tool)
        yield Conversation(messages, (CALCULATOR,), id=text_of(row.get("id")))
    else:
        yield exchange(question, answer_of(answer), row)


def from_solution(row: Row, run_tool: RunTool | None) -> Iterator[Conversation]:
    """{question or problem, solution or generated_solution}: the solution is the answer, thinking in it apart."""
    question = text_of(row["question"] if "question" in row else row["problem"])
    solution = row["solution"] if row.get("solution") is not None else row["generated_solution"]
    yield exchange(question, answer_of(text_of(solution)), row)


def from_long_solution(row: Row, run_tool: RunTool | None) -> Iterator[Conversation]:
    """{question, solution, answer} of LIMO, whose solutions are long thinking aloud up to a last section."""
    answer = worked_solution(text_of(row["solution"]), text_of(row.get("answer")))
    yield exchange(text_of(row["question"]), answer, row)


_NAMED_CHOICE = re.compile(
    r"\n?[^\n]*\b(?:answer|option|choice)\b[^\n]{0,20}?[ :(.]([A-E])\b[^\n]{0,3}$", re.IGNORECASE
)


def from_choices(row: Row, run_tool: RunTool | None) -> Iterator[Conversation]:
    """{question, options, rationale, correct} (AQuA-RAT): a worked answer that ends with the chosen letter."""
    options = list_of(row["options"], "options")
    letter = text_of(row["correct"]).strip()
    listed = "\n".join(text_of(option).replace(")", ") ", 1).replace(")  ", ") ") for option in options)
    # Many rationales end with the letter already, each in its own words.
    rationale = _NAMED_CHOICE.sub("", text_of(row["rationale"]).strip()).strip()
    answer = f"{rationale}\n\nThe answer is {letter}.".strip()
    yield exchange(f"{text_of(row['question']).strip()}\n\n{listed}", Message("assistant", answer), row)
