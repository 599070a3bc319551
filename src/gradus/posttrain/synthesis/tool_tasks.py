"""Tasks with tools: thinking, one call, its real result, an answer. And thinking that ends in an answer without a call.

The three patterns of joint fine-tuning. The teacher writes the question, the thinking and the call; our own tool runs
it; then the teacher writes the answer from the result that it is shown.
"""

from __future__ import annotations

import json
import random

from gradus.conversation.calculator_marks import CALCULATOR
from gradus.conversation.checks import last_number
from gradus.conversation.messages import Conversation, Message, ToolCall
from gradus.posttrain.synthesis.judge import (
    refuse_copied,
    refuse_number,
    require_citations,
    require_grounded,
    require_number,
    require_thinking,
)
from gradus.posttrain.synthesis.material import Material, asking, banks
from gradus.posttrain.synthesis.teacher import Brief, Rejected, Teacher
from gradus.tools.web_search import WEB_SEARCH, cut_address

QUESTION = "what the user writes"
THINKING = "what the assistant thinks before it does anything, in two to five plain sentences, in the first person"


def draw_search(rng: random.Random, material: Material) -> Brief:
    """A question that a passage of the documents answers, to be found by searching."""
    hit = material.passage(rng)
    prompt = (
        f'{asking(rng)} The user asks something that this text, titled "{hit.title}", answers, and that nobody knows '
        "by heart. The user does not have the text and does not mention it; the question names its subject, so that it "
        f"is clear by itself. The assistant decides to search.\n\nText:\n{hit.text}"
    )
    fields = {
        "question": QUESTION,
        "thinking": f"{THINKING}: what is asked, why it must be looked up, what to search for; never the answer",
        "query": "the search query, three to eight words that the text would have",
    }
    return Brief(prompt, fields, {"url": cut_address(hit.url), "text": hit.text})


async def write_search(brief: Brief, material: Material, teacher: Teacher) -> Conversation:
    """Think, search, answer with citations. The search must find the document that the question is about."""
    first = await teacher.write(brief)
    refuse_mention_of_text(first["question"])
    for part in (first["question"], first["thinking"]):
        refuse_copied(part, brief.facts["text"])
    # A figure that the question does not have can only be the text's.
    require_grounded(first["thinking"], first["question"], "answer_in_thinking")
    call, result = material.run(WEB_SEARCH.name, "query", first["query"])
    results = json.loads(result.content)["results"]
    fitting = {found["number"] for found in results if found["url"] == brief.facts["url"]}
    if not fitting:
        raise Rejected("search_missed", f"the query does not find {brief.facts['url']}", first["query"])
    second = await teacher.write(_after_result(first, call, result, "Cite each source that is used as [number]."))
    answer = second["answer"]
    require_citations(answer, {found["number"] for found in results}, fitting)
    require_grounded(answer, f"{result.content}\n{first['question']}")
    require_thinking(first["thinking"], answer)
    return _with_call(first, call, result, answer, material)


def draw_calculator(rng: random.Random, material: Material) -> Brief:
    """A question with numbers that a calculator answers."""
    bank = banks()
    prompt = (
        f"{asking(rng)} The user asks about {bank.text('money', rng)}, {bank.text('scene', rng)} or elsewhere. Use "
        f"numbers of one's own choice, the first between {rng.randint(3, 40)} and {rng.randint(60, 9000)}; all that is "
        "needed stands in the question. The assistant decides to use the calculator once."
    )
    fields = {
        "question": QUESTION,
        "thinking": f"{THINKING}: what is asked and which calculation gives it; never its result",
        "expression": "one expression with + - * / ** and brackets, or percent(rate, amount), cagr(start, end, years), "
        "compound_interest(principal, rate, years, times_a_year), emi(principal, rate, months), round(x, places)",
    }
    return Brief(prompt, fields)


async def write_calculator(brief: Brief, material: Material, teacher: Teacher) -> Conversation:
    """Think, calculate, answer. The answer states the calculator's result."""
    first = await teacher.write(brief)
    call, result = material.run(CALCULATOR.name, "expression", first["expression"])
    value = last_number(result.content)
    if value is None:
        raise Rejected("tool_error", result.content)
    refuse_number(first["thinking"], value, first["question"])
    second = await teacher.write(_after_result(first, call, result, "Round as people do, and name the unit."))
    require_number(second["answer"], value, first["question"])
    require_thinking(first["thinking"], second["answer"])
    return _with_call(first, call, result, second["answer"], material)


def draw_direct(rng: random.Random, material: Material) -> Brief:
    """A question that needs no tool."""
    bank = banks()
    prompt = (
        f"{asking(rng)} The user asks about {bank.text('topic', rng)}. The assistant knows this well, needs no tool, "
        f"thinks shortly and answers {bank.text('length', rng)}."
    )
    fields = {
        "question": QUESTION,
        "thinking": f"{THINKING}: what is asked, what matters, why no search is needed; not the wording of the answer",
        "answer": "what the assistant then says",
    }
    return Brief(prompt, fields)


async def write_direct(brief: Brief, material: Material, teacher: Teacher) -> Conversation:
    """Think, then answer."""
    fields = await teacher.write(brief)
    require_thinking(fields["thinking"], fields["answer"])
    return thinking_row(fields, material)


def thinking_row(fields: dict[str, str], material: Material) -> Conversation:
    """Question, thinking, answer."""
    messages = (Message("user", fields["question"]), Message("assistant", fields["answer"], fields["thinking"]))
    return Conversation(messages, material.tools())


def refuse_mention_of_text(question: str) -> None:
    """A question must stand by itself."""
    lowered = question.casefold()
    for words in ("the text", "this text", "the passage", "the excerpt", "the document", "according to the"):
        if words in lowered:
            raise Rejected("mentions_text", repr(words), question)


def _after_result(first: dict[str, str], call: ToolCall, result: Message, rule: str) -> Brief:
    prompt = (
        f"A user wrote:\n{first['question']}\n\nThe assistant thought:\n{first['thinking']}\n\nIt called "
        f"{call.name} with {json.dumps(call.arguments, ensure_ascii=False)} and got:\n{result.content}\n\n"
        f"Write its answer to the user, from this result alone, in one to four sentences. {rule}"
    )
    return Brief(prompt, {"answer": "what the assistant says to the user"})


def _with_call(first: dict[str, str], call: ToolCall, result: Message, answer: str, material: Material) -> Conversation:
    messages = (
        Message("user", first["question"]),
        Message("assistant", "", first["thinking"], (call,)),
        result,
        Message("assistant", answer),
    )
    return Conversation(messages, material.tools())
