"""Which texts of a batch may repeat too many lines or paragraphs: an upper bound that acquits most texts.

Lines are compared by their length and three samples of eight bytes. Equal lines have equal samples, so no repetition
is missed; what is left is compared in full.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradus.data.filters.segments import Segments, mixed, sampled_hashes

_BREAK = 2  # line feeds between lines of different paragraphs


def may_repeat_lines(
    lines: Segments, sizes: NDArray[np.int64], most_share: float | None, most_characters: float | None
) -> NDArray[np.bool_]:
    """Whether a text's duplicate lines or paragraphs may break a limit, (D,), white space at its ends aside.

    sizes: (D,) characters; most_share: of lines, and of paragraphs; most_characters: of the characters.
    """
    num_texts = len(sizes)
    suspect = np.zeros(num_texts, dtype=bool)
    if not len(lines.starts):
        return suspect
    is_later = _is_later(sampled_hashes(lines) + mixed(lines.text_of.astype(np.uint64)))
    num_later = np.bincount(lines.text_of[is_later], minlength=num_texts)
    bytes_later = np.bincount(lines.text_of, weights=lines.num_bytes * is_later, minlength=num_texts)
    # Every line of a duplicate paragraph is a duplicate line.
    opens = np.ones(len(is_later), dtype=bool)
    opens[1:] = (lines.starts[1:] - lines.ends[:-1] >= _BREAK) | (lines.text_of[1:] != lines.text_of[:-1])
    firsts = np.flatnonzero(opens)
    text_of_paragraph = lines.text_of[firsts]
    paragraphs_later = text_of_paragraph[np.logical_and.reduceat(is_later, firsts)]
    if most_share is not None:
        num_paragraphs = np.bincount(text_of_paragraph, minlength=num_texts)
        num_paragraphs_later = np.bincount(paragraphs_later, minlength=num_texts)
        suspect |= (num_later >= most_share * lines.counts) | (num_paragraphs_later >= most_share * num_paragraphs)
    if most_characters is not None:
        # A paragraph has line feeds besides its lines.
        suspect |= bytes_later + num_later >= most_characters * sizes
    return suspect & (num_later > 0)


def _is_later(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether a key has occurred before."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    answers = np.zeros(len(keys), dtype=bool)
    answers[order[1:][ordered[1:] == ordered[:-1]]] = True
    return answers
