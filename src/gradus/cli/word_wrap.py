"""Breaking lines between words while a text still streams in: the word in the making is held back until it ends."""

from __future__ import annotations

import re

_PIECES = re.compile(r"\n|[^\S\n]+|\S+")
_NO_WORD_IS_SO_LONG = 40  # cells; text without spaces (Chinese, addresses) goes out as it comes


class WordWrap:
    """For one text on lines of `width` cells."""

    def __init__(self, width: int) -> None:
        self._width = max(width, 1)
        self._column = 0
        self._held = ""  # a word that may go on
        self._gap = ""  # spaces that are dropped where the line breaks behind them

    def push(self, text: str) -> str:
        """More of the text. Returns what can be shown."""
        return self._shown(self._held + text, ends=False)

    def finish(self) -> str:
        """What is still held back."""
        return self._shown(self._held, ends=True)

    def _shown(self, text: str, ends: bool) -> str:
        from rich.cells import cell_len

        self._held = ""
        pieces = _PIECES.findall(text)
        longest = min(_NO_WORD_IS_SO_LONG, self._width)
        if pieces and not ends and not pieces[-1].isspace() and cell_len(pieces[-1]) < longest:
            self._held = pieces.pop()
        return "".join(self._placed(piece) for piece in pieces)

    def _placed(self, piece: str) -> str:
        """A line end, spaces or a word, broken before where it does not fit."""
        from rich.cells import cell_len

        if piece == "\n":
            self._column, self._gap = 0, ""
            return piece
        if piece.isspace():
            self._gap += piece
            return ""
        gap, self._gap = self._gap, ""
        width = cell_len(piece)
        needed = self._column + cell_len(gap.expandtabs(8)) + width
        if self._column and needed > self._width:
            self._column = width % self._width
            return "\n" + piece
        self._column = needed if needed <= self._width else needed % self._width
        return gap + piece
