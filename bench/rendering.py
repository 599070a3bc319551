"""Claim: conversations are rendered, ids and training mask, at least twice as fast as by transformers, and to the same.

    python bench/rendering.py --conversations ../shared/data/{tool_calls,reasoning,multiturn,instruct_small}

Both sides have one tokenizer (trained on the conversations) and chat template, read by transformers from the folder
that an export writes. The other side is apply_chat_template with return_assistant_tokens_mask, one conversation after
another, as it takes them; ours is `render_many` on the same list. Sides alternate; speeds are medians over the rounds,
of processor time, one thread each. Ids and masks of every conversation are compared before anything is timed.
Conversations that spell a control token in their text are left out: there the template gives control ids, ours text.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")

from bench_record import machine, write_result
from pack_conversations import sound_conversations

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.messages import Conversation
from gradus.tokenizer.specials import SPECIAL_TOKENS
from gradus.tokenizer.training import train_tokenizer

HERE = Path(__file__).resolve().parent


def arguments(conversation: Conversation) -> dict[str, Any]:
    """What apply_chat_template takes for a conversation."""
    switches = {} if conversation.think is None else {"enable_thinking": conversation.think}
    return {
        "conversation": [message.to_json() for message in conversation.messages],
        "tools": [tool.to_json() for tool in conversation.tools] or None,
        "return_dict": True,
        "return_assistant_tokens_mask": True,
        **switches,
    }


def spread(conversations: list[Conversation], number: int) -> list[Conversation]:
    """So many, evenly over all of them, so that every file is there."""
    plain = [c for c in conversations if not any(name in str(c.to_json()) for name in SPECIAL_TOKENS)]
    if len(plain) < number:
        raise SystemExit(f"{len(plain)} conversations without control tokens in their text; {number} are needed")
    return [plain[i * len(plain) // number] for i in range(number)]


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=Path, nargs="+", required=True)
    parser.add_argument("--number", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocab-size", type=int, default=8192)
    args = parser.parse_args()
    import transformers

    chosen = spread(sound_conversations(args.conversations), args.number)
    texts = [message.content for conversation in chosen for message in conversation.messages]
    form = HermesFormat(train_tokenizer(texts, args.vocab_size))
    with tempfile.TemporaryDirectory() as folder:
        form.tokenizer.save(Path(folder), form.chat_template)
        hub: Any = transformers.AutoTokenizer.from_pretrained(folder)
    asked = [arguments(conversation) for conversation in chosen]
    rendered = form.render_many(chosen)
    for ours, theirs in zip(rendered, (hub.apply_chat_template(**a) for a in asked), strict=True):
        assert ours.ids.tolist() == theirs["input_ids"]
        assert ours.mask.astype(int).tolist() == theirs["assistant_masks"]
    seconds: dict[str, list[float]] = {"gradus": [], "transformers": []}
    for _ in range(args.rounds):
        # A format remembers the declared tools it has seen; a new one begins without.
        seconds["gradus"].append(timed(lambda: HermesFormat(form.tokenizer).render_many(chosen)))
        seconds["transformers"].append(timed(lambda: [hub.apply_chat_template(**a) for a in asked]))
    rates = {name: args.number / statistics.median(values) for name, values in seconds.items()}
    ratio = rates["gradus"] / rates["transformers"]
    print({name: round(rate) for name, rate in rates.items()}, f"ratio {ratio:.2f}")
    assert ratio >= 2, ratio
    kinds = {
        "with_calls": sum(any(m.tool_calls for m in c.messages) for c in chosen),
        "with_thinking": sum(any(m.reasoning_content for m in c.messages) for c in chosen),
        "with_several_turns": sum(sum(m.role == "user" for m in c.messages) > 1 for c in chosen),
    }
    result = machine() | {
        "data": {"conversations": args.number, "tokens": sum(len(r.ids) for r in rendered), **kinds},
        "identical": args.number,
        "conversations_per_second": rates,
        "seconds": seconds,
        "ratio": ratio,
        "transformers": importlib.metadata.version("transformers"),
    }
    write_result(HERE / "results" / "rendering.json", result)


if __name__ == "__main__":
    main()
