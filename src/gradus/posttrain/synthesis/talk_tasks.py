"""Tasks without thinking or tools: who the assistant is, creative writing, follow-ups by pronoun, tone, documents."""

from __future__ import annotations

import random
import re

from gradus.conversation.messages import Conversation, Message
from gradus.posttrain.synthesis.judge import refuse_other_names, require_citations, require_grounded
from gradus.posttrain.synthesis.material import Material, asking, banks
from gradus.posttrain.synthesis.teacher import Brief, Rejected, Teacher
from gradus.posttrain.synthesis.tool_tasks import QUESTION

SAYS = "what the assistant says"
# Form, what is asked for it, its lines at least and at most, its characters at most.
_FORMS = {
    "haiku": ("three lines of 5, 7 and 5 syllables", 3, 3, 160),
    "limerick": ("five lines, rhymed AABBA", 5, 5, 400),
    "joke": ("a set-up and a point, two to four sentences", 1, 6, 500),
    "riddle": ("the riddle, then its solution in the last sentence", 1, 8, 600),
    "story": ("a beginning, a turn and an end, 100 to 220 words", 1, 40, 2200),
    "poem": ("eight to sixteen lines, rhymed or not", 8, 20, 1200),
    "letter": ("a short letter with a greeting and a close", 3, 25, 1500),
    "dialogue": ("six to ten lines of talk between two voices with names", 6, 24, 1500),
    "opening": ("the first paragraph of a novel, 60 to 120 words", 1, 4, 1200),
}
_PRONOUNS = re.compile(
    r"\b(?:he|him|his|she|her|hers|it|its|they|them|their|theirs|that|those|this|these|there|one)\b", re.IGNORECASE
)


def draw_identity(rng: random.Random, material: Material) -> Brief:
    """Something that people ask an assistant about itself."""
    prompt = (
        f"{asking(rng)} The user asks the assistant about {banks().text('aspect', rng)}. Everything that the assistant "
        "says of itself comes from this sheet; what is not in it, it says it does not know.\n\nSheet:\n"
        f"{material.persona}"
    )
    return Brief(prompt, {"question": QUESTION, "answer": f"{SAYS} of itself, in one to three sentences"})


async def write_identity(brief: Brief, material: Material, teacher: Teacher) -> Conversation:
    """No other assistant's name, and no number that the sheet does not have."""
    fields = await teacher.write(brief)
    refuse_other_names(fields["answer"], material.persona, fields["question"])
    require_grounded(fields["answer"], f"{material.persona}\n{fields['question']}")
    return _plain_row(fields, material)


def draw_creative(rng: random.Random, material: Material) -> Brief:
    """A small piece of writing."""
    form = rng.choice(list(_FORMS))
    bank = banks()
    prompt = (
        f"{asking(rng)} The user asks for a {form} about {bank.text('subject', rng)}. Its mood is "
        f"{bank.text('mood', rng)}. The assistant writes it at once, without a preface and without a comment after."
    )
    return Brief(prompt, {"question": QUESTION, "answer": f"the {form}: {_FORMS[form][0]}"}, {"form": form})


async def write_creative(brief: Brief, material: Material, teacher: Teacher) -> Conversation:
    """The form's number of lines."""
    fields = await teacher.write(brief)
    form = brief.facts["form"]
    _, least, most, characters = _FORMS[form]
    lines = [line for line in fields["answer"].splitlines() if line.strip()]
    if not least <= len(lines) <= most:
        raise Rejected("wrong_form", f"a {form} of {len(lines)} lines, expected {least} to {most}", fields["answer"])
    if len(fields["answer"]) > characters:
        raise Rejected("wrong_form", f"a {form} of {len(fields['answer'])} characters", fields["answer"])
    return _plain_row(fields, material)


def draw_follow_up(rng: random.Random, material: Material) -> Brief:
    """Two or three turns, the later ones with a pronoun in place of the name."""
    bank = banks()
    turns = rng.choice((2, 2, 3))
    prompt = (
        f"{asking(rng)} A talk about {bank.text('entity', rng)}, a real and well known one. The user first asks about "
        f"it by name, then about {bank.text('relation', rng)}. After the first turn the user never names it again and "
        "says he, she, it, they, his, her, its, their or there instead; the assistant understands."
    )
    fields = {"entity": "its name", "question 1": QUESTION, "answer 1": SAYS}
    for turn in range(2, turns + 1):
        fields |= {f"question {turn}": "what the user asks next, with a pronoun", f"answer {turn}": SAYS}
    return Brief(prompt, fields, {"turns": str(turns)})


async def write_follow_up(brief: Brief, material: Material, teacher: Teacher) -> Conversation:
    """The name stands in the first turn and in no later question; each of those has a pronoun."""
    fields = await teacher.write(brief)
    entity = fields["entity"].casefold()
    if entity not in f"{fields['question 1']} {fields['answer 1']}".casefold():
        raise Rejected("no_entity", f"{fields['entity']!r} is not in the first turn", fields["question 1"])
    messages: list[Message] = []
    for turn in range(1, int(brief.facts["turns"]) + 1):
        question = fields[f"question {turn}"]
        if turn > 1 and entity in question.casefold():
            raise Rejected("names_entity", f"turn {turn} names {fields['entity']!r}", question)
        if turn > 1 and not _PRONOUNS.search(question):
            raise Rejected("no_pronoun", f"turn {turn}", question)
        messages += [Message("user", question), Message("assistant", fields[f"answer {turn}"])]
    return Conversation(tuple(messages), material.tools())


def draw_tone(rng: random.Random, material: Material) -> Brief:
    """A situation in which the register decides."""
    bank = banks()
    prompt = (
        f"{asking(rng)} The situation: {bank.text('situation', rng)}. The assistant finds the right tone: attentive, "
        "natural, never stiff, no lecture, no excuses for being a machine, as short as it can be."
    )
    return Brief(prompt, {"question": QUESTION, "answer": f"{SAYS}, {bank.text('length', rng)}"})


async def write_tone(brief: Brief, material: Material, teacher: Teacher) -> Conversation:
    """What the judge of every row asks for."""
    return _plain_row(await teacher.write(brief), material)


def draw_documents(rng: random.Random, material: Material) -> Brief:
    """A question about notes that the user gives along: one passage has the answer, another does not."""
    hit, other = material.passage(rng), material.passage(rng)
    # The order must not tell which one it is; a document that stands on both sides counts once.
    hits = [hit] if other.url == hit.url else rng.sample([hit, other], 2)
    notes = "\n\n".join(f"[{number}] {found.title}\n{found.text}" for number, found in enumerate(hits, start=1))
    number = str(hits.index(hit) + 1)
    prompt = (
        f"{asking(rng)} The user gives the assistant these notes, and asks something that note [{number}] answers. The "
        f"assistant answers from the notes alone and cites the note as [{number}].\n\nNotes:\n{notes}"
    )
    fields = {
        "question": f"{QUESTION} besides the notes; it does not name the note",
        "quote": f"the words of note [{number}] that hold the answer, copied exactly",
        "answer": f"{SAYS}, in one to three sentences, with the citation [{number}]",
    }
    return Brief(prompt, fields, {"notes": notes, "text": hit.text, "number": number})


async def write_documents(brief: Brief, material: Material, teacher: Teacher) -> Conversation:
    """The quote stands in the note, the note is cited, and every number comes from the notes."""
    fields = await teacher.write(brief)
    quote, text = (" ".join(words.casefold().split()) for words in (fields["quote"], brief.facts["text"]))
    if quote.strip("\"' .") not in text or len(quote) < 10:
        raise Rejected("quote_not_in_document", "the quoted words are not in the note", fields["quote"])
    require_citations(fields["answer"], {1, 2}, {int(brief.facts["number"])})
    require_grounded(fields["answer"], f"{brief.facts['notes']}\n{fields['question']}")
    asked = f"{brief.facts['notes']}\n\n{fields['question']}"
    return _plain_row(fields | {"question": asked}, material)


def _plain_row(fields: dict[str, str], material: Material) -> Conversation:
    return Conversation((Message("user", fields["question"]), Message("assistant", fields["answer"])), material.tools())
