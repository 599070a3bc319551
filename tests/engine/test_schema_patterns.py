"""What a grammar lets be written of patterns and bounds, which Python and llguidance read in two ways."""

from __future__ import annotations

import json
import re

import pytest

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.messages import JsonObject
from gradus.engine.grammar import Grammars
from gradus.engine.schema import UnenforceableError, narrowed
from gradus.tokenizer.training import train_tokenizer

pytest.importorskip("llguidance", reason='constrained decoding needs pip install "gradus[engine]"')


@pytest.fixture(scope="module")
def form() -> HermesFormat:
    return HermesFormat(train_tokenizer(["any words will do"] * 5, vocab_size=270))


@pytest.fixture(scope="module")
def grammars(form: HermesFormat) -> Grammars:
    return Grammars(form)


def is_answer(form: HermesFormat, grammars: Grammars, schema: JsonObject, text: str) -> bool:
    """Whether the grammar of a schema lets a text be written."""
    grammar = grammars.answer(schema)
    for token in form.tokenizer.encode(text):
        if not grammar.allowed()[token]:
            return False
        grammar.push(token)
    return grammar.may_end


def test_a_bound_that_is_excluded_is_not_written_in_more_digits_than_a_float_has(
    form: HermesFormat, grammars: Grammars
) -> None:
    """0.29999999999999999999 is 0.3 to Python."""
    for kind in ("allOf", "anyOf"):
        schema = {kind: [{"type": "number"}], "exclusiveMinimum": 0, "exclusiveMaximum": 0.3}
        for digits, fits in (("0.28", True), ("0.29999999999999999999", False), ("0.00000000000000000000", False)):
            assert fits == is_answer(form, grammars, schema, digits), (kind, digits)


# What is right is what Python's re finds, in patterns that both read.
@pytest.mark.parametrize(
    "pattern",
    [
        r"^[a-c][d-f]$",
        r"^\[[a-c]\]$",
        r"^[\[a]$",
        r"^[]a]$",
        r"^a{2}\{ 2\}$",
        r"^[^a]$",
        r'^[^"\x00-\x1f]$',
        r"^[^a\\d\x00-\x1f]$",
    ],
)
def test_patterns_with_brackets_are_read_as_python_reads_them(
    form: HermesFormat, grammars: Grammars, pattern: str
) -> None:
    for text in ("ad", "[a]", "[", "a", "]", "b", "d", "\u0665", "\\", '"', "aa{ 2}", "aa"):
        fits = re.search(pattern, text) is not None
        assert fits == is_answer(
            form, grammars, {"type": "string", "pattern": pattern}, json.dumps(text, ensure_ascii=False)
        )


@pytest.mark.parametrize(
    "pattern", ["^[a[:alpha:]]$", "^[]a[b]]$", r"^[^\]\w]$", r"^[^]\w]$", r"^\\[a[b]]$", "^a{ 2 }$"]
)
def test_patterns_that_python_reads_in_another_way_are_refused(pattern: str) -> None:
    with pytest.raises(UnenforceableError, match="is read in more than one way"):
        narrowed({"type": "string", "pattern": pattern})


@pytest.mark.parametrize(
    "pattern", ['^[^"]*$', r"^[^\\]$", r'^[^"\\]$', r"[\x00-\x1fa]", r"(?:[!#-z]|[\x00-\x1f])", r"^[\x00-!]$"]
)
def test_classes_that_would_let_a_quote_in_are_refused_with_what_to_write(pattern: str) -> None:
    """As llguidance reads them, `[^"]` takes a quote."""
    with pytest.raises(UnenforceableError, match=r"cannot be held apart; (write|leave those out)"):
        narrowed({"type": "string", "pattern": pattern})
