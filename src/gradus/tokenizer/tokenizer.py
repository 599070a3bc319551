"""The tokenizer: text to ids and back, byte-level BPE, lossless, with control tokens that text can never
become.

The reference encoder is HF `tokenizers` over the saved tokenizer.json; the fast one is tiktoken over the same
vocabulary, used only where `merges_follow_ranks` proves both give the same ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradus.core.errors import ArtifactError, DataError, did_you_mean
from gradus.core.files import write_atomic
from gradus.core.fingerprint import digest
from gradus.core.machine import usable_cores
from gradus.tokenizer.difficult_text import CANARY
from gradus.tokenizer.merges import byte_alphabet, merges_follow_ranks, token_from_text
from gradus.tokenizer.patterns import GPT2_PATTERN
from gradus.tokenizer.specials import END_OF_TEXT, HIDDEN_TOKENS, IM_END
from gradus.tokenizer.spread import spread

if TYPE_CHECKING:
    import tiktoken
    import tokenizers

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_MAP_FILE = "special_tokens_map.json"

# tiktoken's regex engine runs out of stack on longer runs of white space (measured: 100,000 pass, 1,000,000
# panic).
_LONG_TEXT = 50_000
_LONG_BLANK = re.compile(r"\s{50000}")
_MOST_THREADS = 8


class Tokenizer:
    """Byte-level BPE with control tokens.

    Ordinary ids come from text, control ids only from `special`. Built by `train_tokenizer` or
    `load_tokenizer`. plain_json: its tokenizer.json without control tokens, for encoders of text.
    """

    def __init__(self, backend_json: str) -> None:
        """backend_json: the text of a tokenizer.json. ArtifactError where it is not a byte-level BPE."""
        import tokenizers

        self._data: dict[str, Any] = json.loads(backend_json)
        check_byte_level(self._data)
        self._json = backend_json
        self._specials: dict[str, int] = {t["content"]: int(t["id"]) for t in self._data["added_tokens"]}
        self._hidden = frozenset(int(t["id"]) for t in self._data["added_tokens"] if t["special"])
        # Without added tokens and post-processing, no text can reach a control id.
        plain = {
            **self._data,
            "added_tokens": [],
            "post_processor": None,
            "truncation": None,
            "padding": None,
        }
        self.plain_json = json.dumps(plain, ensure_ascii=False)
        try:
            self._reference: tokenizers.Tokenizer = tokenizers.Tokenizer.from_str(self.plain_json)
        except Exception as error:  # noqa: BLE001 (the package raises nothing more exact)
            raise ArtifactError(f"not a readable tokenizer.json ({error})") from None
        self._bytes: list[bytes] = self._token_table()
        self._special_bytes = {i: name.encode() for name, i in self._specials.items()}

    def _token_table(self) -> list[bytes]:
        """The bytes of every id; control ids and gaps hold none."""
        alphabet = byte_alphabet()
        vocab: dict[str, int] = self._data["model"]["vocab"]
        size = 1 + max([*vocab.values(), *self._specials.values()])
        table = [b""] * size
        controls = set(self._specials.values())
        for text, token_id in vocab.items():
            if token_id not in controls:
                table[token_id] = token_from_text(text, alphabet) or text.encode()
        return table

    # --- facts

    @property
    def vocab_size(self) -> int:
        """Number of ids, control tokens included: the largest id plus one."""
        return len(self._bytes)

    @property
    def special_tokens(self) -> dict[str, int]:
        """Control tokens and their ids, in order of id."""
        return dict(sorted(self._specials.items(), key=lambda item: item[1]))

    def special(self, name: str) -> int:
        """The id of a control token, or DataError."""
        if name not in self._specials:
            known = ", ".join(self.special_tokens) or "none"
            raise DataError(
                f'tokenizer: no control token "{name}"; it has {known}{did_you_mean(name, self._specials)}; '
                "load it with special_tokens=SPECIAL_TOKENS to add what a conversation needs"
            )
        return self._specials[name]

    @cached_property
    def token_bytes(self) -> NDArray[np.int64]:
        """(vocab_size,) bytes of text that each id stands for; 0 for control tokens."""
        return np.array([len(token) for token in self._bytes], dtype=np.int64)

    @cached_property
    def digest(self) -> str:
        """Identity of what ids mean: vocabulary, merges, splitting, control tokens. 64 hex digits."""
        keys = ("normalizer", "pre_tokenizer", "decoder", "model", "added_tokens")
        return digest({key: self._data[key] for key in keys})

    # --- text to ids

    def encode(self, text: str) -> list[int]:
        """Ids of text. "<|im_end|>" in it is ten ordinary characters. DataError on unpaired surrogates."""
        return self.encode_lists([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Ids of many texts, one int32 array each; many or long texts are spread over usable cores."""
        for text in texts:
            check_text(text)
        threads = min(usable_cores(), _MOST_THREADS) if sum(map(len, texts)) >= _LONG_TEXT else 1
        return spread(lambda _, group: self._arrays(group), texts, threads)

    def encode_lists(self, texts: Sequence[str]) -> list[list[int]]:
        """As `encode_batch`, as lists: cheaper where the texts are short and get joined."""
        for text in texts:
            check_text(text)
        fast = self._fast
        if fast is None:
            return self._encode_reference(texts)
        total = sum(map(len, texts))
        if total < _LONG_TEXT:
            return [fast.encode_ordinary(text) for text in texts]
        hard = {i: text for i, text in enumerate(texts) if is_hard_for_tiktoken(text)}
        easy = ["" if i in hard else text for i, text in enumerate(texts)] if hard else list(texts)
        # A thread pool costs tens of microseconds a text, so it is worth it for documents, not for messages.
        if total < 4_000 * len(texts):
            found = [fast.encode_ordinary(text) for text in easy]
        else:
            found = fast.encode_ordinary_batch(easy, num_threads=min(usable_cores(), _MOST_THREADS))
        for i, ids in zip(hard, self._encode_reference(list(hard.values())), strict=True):
            found[i] = ids
        return found

    def _arrays(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        fast = self._fast
        if fast is None:
            return [np.array(ids, dtype=np.int32) for ids in self._encode_reference(texts)]
        return [
            np.array(self._encode_reference([text])[0], dtype=np.int32)
            if is_hard_for_tiktoken(text)
            else fast.encode_to_numpy(text, disallowed_special=()).view(np.int32)
            for text in texts
        ]

    def _encode_reference(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(e.ids) for e in self._reference.encode_batch_fast(list(texts), add_special_tokens=False)]

    @cached_property
    def _fast(self) -> tiktoken.Encoding | None:
        """tiktoken over the same vocabulary, or None where its ids could differ."""
        pattern = plain_pattern(self._data)
        model = self._data["model"]
        if pattern is None or self._data["normalizer"] is not None or model.get("dropout"):
            return None
        alphabet = byte_alphabet()
        controls = set(self._specials.values())
        ranks = {self._bytes[i]: i for i in model["vocab"].values() if i not in controls}
        merges = []
        for merge in model["merges"]:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            pair = token_from_text(left, alphabet), token_from_text(right, alphabet)
            if pair[0] is None or pair[1] is None:
                return None
            merges.append((pair[0], pair[1]))
        if not merges_follow_ranks(merges, ranks):
            return None
        import tiktoken

        # No control token is ever allowed in a text. This one is named because `encode_to_numpy` looks for them,
        # and without any it stops at every character (measured: half the speed).
        never = {END_OF_TEXT: self.vocab_size}
        fast = tiktoken.Encoding("gradus", pat_str=pattern, mergeable_ranks=ranks, special_tokens=never)
        if fast.encode_ordinary(CANARY) != self._reference.encode(CANARY).ids:
            return None
        return fast

    @property
    def is_fast(self) -> bool:
        """Whether encoding runs on tiktoken (proved equal) or on the reference encoder."""
        return self._fast is not None

    # --- ids to text

    def decode_bytes(self, ids: Iterable[int], skip_special: bool = False) -> bytes:
        """The exact bytes behind ids; control tokens as their names, unless hidden ones are skipped."""
        table, special, hidden = self._bytes, self._special_bytes, self._hidden
        out = []
        for token_id in ids:
            if token_id in special:
                if not (skip_special and token_id in hidden):
                    out.append(special[token_id])
            elif 0 <= token_id < len(table):
                out.append(table[token_id])
            else:
                raise DataError(f"tokenizer: id {token_id} is outside the vocabulary of {len(table):,}")
        return b"".join(out)

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Text of ids; bytes that are no UTF-8 become U+FFFD.

        skip_special leaves out <|endoftext|>, <|im_start|>, <|im_end|>; <think> and <tool_call> stay, as in
        the Hub class, because readers look for them.
        """
        return self.decode_bytes(ids, skip_special).decode("utf-8", errors="replace")

    # --- disk

    def to_json(self) -> str:
        """The text of tokenizer.json."""
        return self._json

    def save(self, folder: Path, chat_template: str | None = None) -> None:
        """Write tokenizer.json, special_tokens_map.json and tokenizer_config.json; the folder must exist.

        chat_template: Jinja text for transformers, vLLM and llama.cpp.
        """
        names = {"eos_token": IM_END, "pad_token": END_OF_TEXT}
        names = {key: name for key, name in names.items() if name in self._specials}
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 1_000_000_000,
            "clean_up_tokenization_spaces": False,
            "add_prefix_space": False,
            **names,
            "added_tokens_decoder": {
                str(t["id"]): {key: value for key, value in t.items() if key != "id"}
                for t in self._data["added_tokens"]
            },
        }
        if chat_template is not None:
            config["chat_template"] = chat_template
        write_atomic(folder / TOKENIZER_FILE, self._json)
        write_atomic(folder / SPECIAL_MAP_FILE, json.dumps(names, indent=2) + "\n")
        write_atomic(folder / CONFIG_FILE, json.dumps(config, indent=2, ensure_ascii=False) + "\n")

    def extended(self, names: Iterable[str]) -> Tokenizer:
        """This tokenizer with the missing ones of `names` appended as control tokens, in order."""
        missing = [name for name in names if name not in self._specials]
        if not missing:
            return self
        data = json.loads(self._json)
        for offset, name in enumerate(missing):
            data["added_tokens"].append(added_token(self.vocab_size + offset, name))
        return Tokenizer(json.dumps(data, ensure_ascii=False))


def added_token(token_id: int, name: str) -> dict[str, Any]:
    """A control token as tokenizer.json describes it."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token_id, "content": name, **flags, "special": name in HIDDEN_TOKENS}


def is_hard_for_tiktoken(text: str) -> bool:
    """Whether a text holds a run of white space that would exhaust tiktoken's regex stack."""
    return len(text) >= _LONG_TEXT and _LONG_BLANK.search(text) is not None


def plain_pattern(data: dict[str, Any]) -> str | None:
    """The split expression of a tokenizer.json where splitting is that and nothing else; None otherwise."""
    pre = data["pre_tokenizer"]
    steps = pre["pretokenizers"] if pre["type"] == "Sequence" else [pre]
    last = steps[-1]
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return None
    if len(steps) == 1 and last["use_regex"]:
        return GPT2_PATTERN
    if len(steps) == 2 and not last["use_regex"] and steps[0]["type"] == "Split":
        split = steps[0]
        if split["behavior"] == "Isolated" and not split["invert"] and "Regex" in split["pattern"]:
            return str(split["pattern"]["Regex"])
    return None


def check_byte_level(data: dict[str, Any]) -> None:
    """ArtifactError unless this tokenizer.json is a byte-level BPE over all 256 bytes."""
    model, pre, decoder = data.get("model") or {}, data.get("pre_tokenizer") or {}, data.get("decoder") or {}
    steps = pre.get("pretokenizers", [pre])
    problem = None
    if model.get("type", "BPE") != "BPE":
        problem = f"its model is {model['type']}, not BPE"
    elif "merges" not in model or "vocab" not in model:
        problem = "its model has no merges"
    elif not any(step.get("type") == "ByteLevel" for step in steps) or decoder.get("type") != "ByteLevel":
        problem = "it does not split and join by bytes (ByteLevel)"
    elif missing := [char for char in byte_alphabet() if char not in model["vocab"]]:
        problem = f"{len(missing)} of the 256 bytes are not in its vocabulary"
    if problem is not None:
        raise ArtifactError(
            f"tokenizer.json: {problem}; only byte-level BPE is supported because it loses no text: "
            "take such a tokenizer (GPT-2, Qwen, Llama 3, SmolLM) or train one"
        )


def check_text(text: str) -> None:
    """DataError unless `text` is a str of Unicode characters, which unpaired surrogates are not."""
    if not isinstance(text, str):
        raise DataError(f"tokenizer: expected text, found {type(text).__name__}")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"tokenizer: character {error.start} of the text is an unpaired surrogate "
            f"(U+{ord(text[error.start]):04X}), which is no Unicode text; clean it with "
            'text.encode("utf-8", "replace").decode()'
        ) from error
