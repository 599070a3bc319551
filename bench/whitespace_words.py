"""Words split at white space, for datatrove; standard library only, for its own interpreter."""

from __future__ import annotations


class WhitespaceWords:
    """The part of a word tokenizer that is asked for."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()
