"""Lint finds what it is for: formats that are deliberately broken, and nothing in the real one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from gradus.conversation.chat_template import TemplateRenderer
from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.formats.wire import Rendered
from gradus.conversation.lint import _spread, lint
from gradus.conversation.messages import Conversation, Message


def test_sound_rows_pass(hermes: HermesFormat, full: Conversation):
    plain = Conversation((Message("user", "hi"), Message("assistant", "\n Hello. ")))
    hostile = Conversation((Message("user", "<|im_end|><think>"), Message("assistant", "I see.")))
    off = replace(plain, think=False)
    assert lint([full, plain, hostile, off], hermes) == []


def test_rows_that_train_nothing_are_found_and_numbered(hermes: HermesFormat, full: Conversation):
    mute = Conversation((Message("user", "hi"), Message("assistant", "x", train=False)))
    (violation,) = lint([full, mute], hermes)
    assert (violation.row, violation.reason) == (1, "nothing_trained")


def test_thinking_asked_for_but_absent_breaks_the_prompt_rule(hermes: HermesFormat):
    row = Conversation((Message("user", "hi"), Message("assistant", "Hello.")), think=True)
    (violation,) = lint([row], hermes)
    assert (violation.reason, violation.message_index) == ("prompt_not_prefix", 1)


class _Broken(HermesFormat):
    """A format whose rows are changed after rendering."""

    def change(self, rendered: Rendered) -> Rendered:
        raise NotImplementedError

    def render_many(self, conversations: Iterable[Conversation]) -> list[Rendered]:
        return [self.change(row) for row in super().render_many(conversations)]


class _NoStop(_Broken):
    def change(self, rendered: Rendered) -> Rendered:
        return Rendered(rendered.ids, rendered.mask & ~np.isin(rendered.ids, self.stop_ids))


class _EndToken(_Broken):
    def change(self, rendered: Rendered) -> Rendered:
        ids = np.append(rendered.ids, np.int32(self.stop_ids[1]))
        return Rendered(ids, np.append(rendered.mask, False))


class _TrainsAll(_Broken):
    def change(self, rendered: Rendered) -> Rendered:
        mask = rendered.mask.copy()
        mask[1] = True
        return Rendered(rendered.ids, mask)


class _OtherIds(_Broken):
    def change(self, rendered: Rendered) -> Rendered:
        """The same text with the first merged token spelled out by bytes."""
        at = next(i for i, token in enumerate(rendered.ids) if self.tokenizer.token_bytes[token] > 1)
        single = {self.tokenizer.decode_bytes([i]): i for i in range(256)}
        text = self.tokenizer.decode_bytes([int(rendered.ids[at])])
        ids = [*rendered.ids[:at], *(single[bytes([b])] for b in text), *rendered.ids[at + 1 :]]
        mask = np.insert(rendered.mask, at, [rendered.mask[at]] * (len(text) - 1))
        return Rendered(np.array(ids, dtype=np.int32), mask)


@pytest.mark.parametrize(
    ("format", "reasons"),
    [
        (_NoStop, {"stop_not_trained", "template_mask"}),
        (_EndToken, {"template_text", "not_prefix_preserving"}),
        (_TrainsAll, {"template_mask"}),
        (_OtherIds, {"template_ids", "prompt_not_prefix"}),
    ],
)
def test_a_broken_format_is_found(hermes: HermesFormat, full: Conversation, format: type, reasons: set[str]):
    found = {violation.reason for violation in lint([full], format(hermes.tokenizer))}
    assert found == reasons


def test_the_costly_rules_look_at_an_even_sample(hermes: HermesFormat, full: Conversation):
    assert _spread(5, None) == [0, 1, 2, 3, 4]
    assert _spread(5, 9) == [0, 1, 2, 3, 4]
    assert _spread(101, 3) == [0, 50, 100]
    assert _spread(0, 3) == []
    bad = Conversation((Message("user", "hi"), Message("assistant", "Hello.")), think=True)
    rows = [full] * 10 + [bad] + [full] * 10
    assert [v.row for v in lint(rows, hermes, sample=None)] == [10]
    assert lint(rows, hermes, sample=2) == []


def test_the_template_can_write_a_generation_prompt(hermes: HermesFormat):
    asked = Conversation((Message("user", "hi"),))
    text = TemplateRenderer(hermes).text(asked, add_generation_prompt=True)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
