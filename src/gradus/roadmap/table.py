"""A plain text table: aligned columns that read the same on a terminal, in a log and in a file."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns two spaces apart under their headers; `right` lists the columns aligned right (figures).

    The last column is not padded, so that a long reason wraps and does not widen the rest.
    """
    widths = [max(len(row[i]) for row in [headers, *rows]) for i in range(len(headers))]
    lines = []
    for row in [headers, ["-" * width for width in widths], *rows]:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    # The rule under the last header is as wide as the header, however long the reasons are.
    if headers:
        cut = sum(widths[:-1]) + 2 * (len(widths) - 1) + len(headers[-1])
        lines[1] = lines[1][: max(cut, 1)] if widths[-1] > 40 else lines[1]
    return "\n".join(lines)
