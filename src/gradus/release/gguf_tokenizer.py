"""The tokenizer of a GGUF file that an export wrote: vocabulary, merges and control tokens out of its header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gradus.core.errors import ArtifactError
from gradus.release.gguf_file import SPLITS, require_gguf
from gradus.tokenizer.specials import SPECIAL_TOKENS
from gradus.tokenizer.tokenizer import Tokenizer, added_token

_FIELDS = ("pre", "tokens", "token_type", "merges")


def gguf_tokenizer(file: Path) -> Tokenizer:
    """Gives every text the ids that the model was trained with.

    Errors: MissingPackageError; ArtifactError for a file that is none, or one that no export of ours wrote.
    """
    require_gguf()
    import gguf
    from tokenizers import Tokenizer as Backend

    try:
        fields = gguf.GGUFReader(file).fields
        facts = {name: fields[f"tokenizer.ggml.{name}"].contents() for name in _FIELDS}
        rows = list(enumerate(zip(facts["tokens"], facts["token_type"], strict=True)))
    except FileNotFoundError as error:
        raise ArtifactError(f"{file}: there is no such file") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ArtifactError(f"{file}: no GGUF file with a byte-level BPE vocabulary ({error})") from error
    patterns = {name: pattern for pattern, name in SPLITS.items()}
    lacking = [name for name in SPECIAL_TOKENS if name not in facts["tokens"]]
    if facts["pre"] not in patterns or lacking:
        what = f"it lacks {', '.join(lacking)}" if lacking else f'its split is "{facts["pre"]}"'
        raise ArtifactError(f"{file}: gradus did not export this file ({what}); export the model: gradus export MODEL")
    controls = (gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED)
    vocabulary = {text: i for i, (text, kind) in rows if kind == gguf.TokenType.NORMAL}
    data: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(i, text) for i, (text, kind) in rows if kind in controls],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": patterns[facts["pre"]]},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [merge.split(" ") for merge in facts["merges"]]},
    }
    try:
        # As the package writes it, so that the tokenizer has the digest of the one that was exported.
        text = Backend.from_str(json.dumps(data, ensure_ascii=False)).to_str()
    except Exception as error:  # noqa: BLE001 (the package raises nothing more exact)
        raise ArtifactError(f"{file}: its vocabulary and merges do not go together ({error})") from None
    return Tokenizer(text)
