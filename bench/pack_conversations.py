"""Claim: packing of whole conversations needs at most 0.1 % more rows than any packing must, from 128 to 16 K tokens.

    python bench/pack_conversations.py --conversations ../shared/data/{alpaca,instruct_small,multiturn,gsm8k,tool_calls}

Conversations of all files (any record shape) are rendered by a tokenizer trained on them and packed at each row length;
those that are longer meet the length policy "drop" and are counted. The bound is L2 of Martello and Toth (1990), which
no packing can be below. "whole" is best-fit decreasing, "tight" searches on. The other side packs as they come from a
buffer of 100, longest that fits first, as nanochat's fine-tuning does; a conversation longer than the row is dropped
there too: as written, 100 of them fill its buffer and it never ends.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from bench_record import machine, write_result
from numpy.typing import NDArray

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.messages import Conversation
from gradus.data.conversation_sources import PoolFiles
from gradus.data.pack import pack_plan
from gradus.data.pack_tight import least_rows
from gradus.data.pool import conversation_faults
from gradus.roadmap.pool_sources import pool_rows
from gradus.tokenizer.training import train_tokenizer

HERE = Path(__file__).resolve().parent
ROW_LENGTHS = (128, 192, 256, 384, 512, 1024, 2048, 4096, 8192, 16384)
BUFFER = 100


def sound_conversations(folders: list[Path], most: int | None = None) -> list[Conversation]:
    """The valid conversations of some folders, in order."""
    rows = pool_rows(tuple(PoolFiles(path=str(folder.resolve())) for folder in folders), Path())
    sound = (row for row in rows if isinstance(row, Conversation) and not conversation_faults(row))
    return list(islice(sound, most))


def rows_from_buffer(lengths: NDArray[np.int64], row_length: int) -> int:
    """Rows of a packer that sees a buffer of the next conversations and takes the longest that fits."""
    waiting, rows = iter(lengths.tolist()), 0
    ready: list[int] = []
    while True:
        ready += islice(waiting, BUFFER - len(ready))
        if not ready:
            return rows
        rows, space = rows + 1, row_length
        while fitting := [length for length in ready if length <= space]:
            taken = max(fitting)
            ready.remove(taken)
            space -= taken
            ready += islice(waiting, 1)


def measured(lengths: NDArray[np.int64], row_length: int) -> dict[str, Any]:
    """One row length: rows against the bound, and that every conversation that fits is in exactly one row."""
    fitting = lengths[lengths <= row_length]
    whole = pack_plan(fitting, row_length, "whole")
    began = time.perf_counter()
    plan = pack_plan(fitting, row_length, "tight")
    seconds = time.perf_counter() - began
    assert np.array_equal(np.sort(plan.document), np.arange(len(fitting)))
    assert np.array_equal(plan.length, fitting[plan.document])
    bound = least_rows(fitting, row_length)
    return {
        "row_length": row_length,
        "conversations": len(fitting),
        "too_long": len(lengths) - len(fitting),
        "rows": plan.num_rows,
        "lower_bound": bound,
        "bound_over_rows": bound / plan.num_rows,
        "whole_rows": whole.num_rows,
        "bound_over_whole_rows": bound / whole.num_rows,
        "fill_fraction": plan.fill_fraction,
        "seconds": seconds,
        "buffer_rows": rows_from_buffer(fitting, row_length),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=Path, nargs="+", required=True)
    parser.add_argument("--vocab-size", type=int, default=8192)
    args = parser.parse_args()
    found = sound_conversations(args.conversations)
    texts = [message.content for conversation in found for message in conversation.messages]
    form = HermesFormat(train_tokenizer(texts, args.vocab_size))
    lengths = np.array([len(rendered.ids) for rendered in form.render_many(found)], dtype=np.int64)
    rows = [measured(lengths, row_length) for row_length in ROW_LENGTHS]
    for row in rows:
        print(
            f"{row['row_length']:>6}: {row['rows']:,} rows, bound {row['lower_bound']:,} "
            f"({row['bound_over_rows']:.4%}), best-fit decreasing {row['whole_rows']:,}, "
            f"fill {row['fill_fraction']:.2%}, buffer {row['buffer_rows']:,}, "
            f"{row['too_long']:,} too long"
        )
    worst = min(row["bound_over_rows"] for row in rows)
    assert worst >= 0.999, worst
    tokens = {"conversations": len(lengths), "tokens": int(lengths.sum()), "vocab_size": args.vocab_size}
    result = machine() | {"data": tokens, "rows": rows, "worst_bound_over_rows": worst}
    write_result(HERE / "results" / "pack-conversations.json", result)


if __name__ == "__main__":
    main()
