"""What the stand-in teacher says: sound rows for every task's prompts, or faulty ones for a share of them.

python tests/teacher_mind.py --port 8377 [--delay 1]      serves it until it is stopped
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from teacher_server import running

THOUGHT = "Let me see what is being asked here and how to come to a sound reply, step by step."
FAULTS = (
    "I'm sorry, I can't help with that.",
    '{"question": "half',
    "plain words, no JSON",
    '{"question": 7, "answer": ""}',
)


def teacher_mind(body: dict[str, Any]) -> str:
    """A sound answer to a prompt of synthesis; the same prompt gets the same one."""
    prompt = body["messages"][-1]["content"]
    fields = re.findall(r'^- "([\w ]+)":', prompt, re.M)
    rng = random.Random(prompt)
    return json.dumps(_values(prompt, fields, rng), ensure_ascii=False)


def faulty_mind(fraction: float, seed: int = 0):
    """As `teacher_mind`, but a share of the answers is none; another try may be better."""
    rng = random.Random(seed)

    def mind(body: dict[str, Any]) -> str:
        return rng.choice(FAULTS) if rng.random() < fraction else teacher_mind(body)

    return mind


def _values(prompt: str, fields: list[str], rng: random.Random) -> dict[str, str]:
    name = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7))
    if "query" in fields:
        words = _words(_after(prompt, "Text:\n"), 6)
        return {"question": f"What is known about {words} ({name})?", "thinking": THOUGHT, "query": words}
    if "expression" in fields:
        rate, amount = rng.randint(3, 40), rng.randint(60, 9000)
        question = f"{name}: how much is {rate}% of {amount}?"
        return {"question": question, "thinking": THOUGHT, "expression": f"percent({rate}, {amount})"}
    if "arguments" in fields:
        if "calls web_search" in prompt:
            arguments = {"query": re.findall(r"known about ([^(]*) \(", prompt)[-1]}
        else:
            rate, amount = re.findall(r"how much is (\d+)% of (\d+)", prompt)[-1]
            arguments = {"expression": f"percent({rate}, {amount})"}
        return {"thinking": THOUGHT, "arguments": json.dumps(arguments)}
    if "Write a poor one" in prompt:
        return {"answer": f"I am so sorry, {name}. As an AI language model I would rather not say."}
    if fields == ["answer"] and "and got:" in prompt:
        result = prompt.split("and got:\n")[1].split("\n\nWrite its answer")[0]
        if "called web_search" in prompt:
            found = json.loads(result)["results"][0]
            return {"answer": f"It says: {_words(found['text'], 8)} [1]"}
        return {"answer": f"That comes to {result}."}
    if "final" in fields:
        one, other = [int(n) for n in re.findall(r"(\d+) and (\d+)", prompt)[-1]] if "question" not in fields else (
            rng.randint(10, 99), rng.randint(10, 99))  # fmt: skip
        total = str(one + other)
        found = {"thinking": f"{THOUGHT} The two together.", "final": total, "answer": f"Together they are {total}."}
        found["question"] = f"{name} has {one} and {other} coins; how many are that?"
        return {field: found[field] for field in fields}
    if "The right answer is:" in prompt:
        given = prompt.split("just like this: ")[1].split(". It asks")[0]
        truth = prompt.split("The right answer is: ")[1].split(". The reasoning")[0]
        question = f"{name} knows {given.replace('; ', ' and ')}; what follows?"
        return {"question": question, "thinking": f"{THOUGHT} So {truth}.", "answer": f"It is {truth}."}
    if "The result is" in prompt:
        given = prompt.split("in figures: ")[1].split(", and no others")[0]
        result = prompt.split("The result is ")[1].split(". The assistant")[0]
        answer = f"That leaves {name} with {result} crates."
        return {"question": f"{name} has {given}; and then?", "thinking": f"{THOUGHT} {result}.", "answer": answer}
    if "entity" in fields:
        found = {"entity": name.title()}
        for field in fields[1:]:
            found[field] = f"Tell me of {name.title()}" if field == "question 1" else f"And what about it, {field}?"
        return found
    if "quote" in fields:
        number = prompt.split("cites the note as [")[1].split("]")[0]
        note = prompt.split(f"\n[{number}] ")[1].split("\n\nReply with")[0].split("\n", 1)[1]
        quote = " ".join(note.split("\n\n[")[0].split()[:9])
        return {"question": f"What of {name}?", "quote": quote, "answer": f"See the note on it [{number}]."}
    if "the haiku" in prompt:
        return {"question": f"A haiku about {name}", "answer": f"{name} falls\nslowly on the pond\nsilence"}
    lines = "\n".join(f"line {word} of {name}" for word in ("one", "two", "three", "four", "five"))
    if "the limerick" in prompt or "the dialogue" in prompt or "the poem" in prompt or "the letter" in prompt:
        more = "" if "the limerick" in prompt else f"\n{name}\nand\nmore"
        return {"question": f"Write about {name}", "answer": lines + more}
    found = {"question": f"What about {name}?", "answer": f"A few words on {name}, to the point."}
    found |= {"thinking": THOUGHT} if "thinking" in fields else {}
    return {field: text for field, text in found.items() if field in fields}


def _after(prompt: str, mark: str) -> str:
    return prompt.split(mark)[1].split("\n\nReply with")[0]


def _words(text: str, count: int) -> str:
    """The first words of a text that are letters alone."""
    return " ".join(re.findall(r"\b[^\W\d_]{4,}\b", text)[:count])


def main() -> None:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8377)
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    with running(teacher_mind, options.port, options.delay):
        threading.Event().wait()


if __name__ == "__main__":
    main()
