"""Training a byte-level BPE: HF `tokenizers` learns the merges, control tokens go behind them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from gradus.core.errors import ConfigError, DataError
from gradus.tokenizer.patterns import split_pattern
from gradus.tokenizer.specials import SPECIAL_TOKENS
from gradus.tokenizer.tokenizer import Tokenizer, added_token, check_text


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    pattern: str = "qwen2",
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
) -> Tokenizer:
    """A tokenizer of exactly `vocab_size` ids: 256 bytes, merges learned from `texts`, `special_tokens` last.

    Same texts in the same order give the same tokenizer. ConfigError where the size leaves no room; DataError
    where the texts hold too few pairs for it.
    """
    smallest = 256 + len(special_tokens)
    if vocab_size < smallest:
        raise ConfigError(
            f"tokenizer: vocab_size {vocab_size:,} is too small; 256 bytes and {len(special_tokens)} control "
            f"tokens need at least {smallest}"
        )
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Backend

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split_pattern(pattern)), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_checked(texts), trainer)
    data = json.loads(backend.to_str())
    found = len(data["model"]["vocab"]) + len(special_tokens)
    if found != vocab_size:
        raise DataError(
            f"tokenizer: the texts hold pairs for {found:,} ids, {vocab_size:,} were asked for; "
            f"give more text or set vocab_size to at most {found:,}"
        )
    data["added_tokens"] = [
        added_token(found - len(special_tokens) + index, name) for index, name in enumerate(special_tokens)
    ]
    return Tokenizer(json.dumps(data, ensure_ascii=False))


def _checked(texts: Iterable[str]) -> Iterator[str]:
    """The texts, each checked to be Unicode text."""
    for text in texts:
        check_text(text)
        yield text
