"""Text on which two encoders that are not the same give different ids, for the check before one is trusted."""

from __future__ import annotations

from collections.abc import Iterable

# Letters and digits that came with Unicode 13 to 17: regex engines of different age split them differently.
CANARY = "a\U00011950b \U0001df00c \U00011f02d \U0002ebf0e \U000105c0f \U0001ccf0g \U00016ea0h \u088f \ua7dci"

# What ends a piece in one engine and not in another: blanks of all kinds, marks, joiners, odd cases and digits.
_ODD = (
    *(" ", "  ", "\t", "\n", "\r\n", "\r", "\n\n \n", "\u00a0", "\u2003", "\u3000", "\u200b", "\u200d", "\u0085"),
    *("\u2028", "\x00", "\x1c", "\ufeff", "\ufffd", "\ue000", "\ufdd0", "\u0301", "\u0e34", "\u0130", "\u0131"),
    *("'", "’", "'s", "'S", "'\u017f", "'T", "'ll", "'RE", "'Ve", "\u212a", "ß", "\u1e9e", "\ufb01", "\u01c5", "ª"),
    *("a", "Z", "9", "12345678", "٣٤", "½", "Ⅷ", "²", "一二", "中文字符", "日本語", "한국어", "שלום", "مرحبا", "हिन्दी"),
    *("ไทย", "🙂", "👍🏽", "👩\u200d👩\u200d👧", "🇩🇪", "_", "-", "--", "...", "!?", "#", "</", "\\", "$x^2$", "{}[]"),
)

_PASSAGES = (
    "The quick brown fox can't jump; it's 17 * 45 = 765, isn't it? I'D SAY WE'LL SEE, they’ve gone.",
    "def f(x: int) -> str:\n    if x >= 10:\n\treturn f'{x:,}'\r\n\n\n    # done   \n  return ''\n",
    "naïve café Ελληνικά русский e\u0301 Zu\u0308rich ὈΔΥΣΣΕΎΣ İstanbul straße ﬁnance",
    "2024-05-06T07:08:09Z 3.14159265358979 1,000,000 0xDEADBEEF 1e-9 v1.2.3-rc.4 192.168.0.1",
    "https://example.org/a/b?c=d&e=%20f#g user@example.org C:\\temp\\x.txt ~/.config",
    "\\begin{equation} \\sum_{i=0}^{n} x_i^2 \\leq \\frac{1}{2} \\end{equation} $\\alpha \\neq \\beta$",
    '<p class="x">a &amp; b</p>\n<!-- c -->\n| a | b |\n|---|---|\n| 1 | 2 |\n* item\n> quote\n```\ncode\n```\n',
    "U2l4dHkgZm91ciBiaXRzIG9mIG5vdGhpbmcgYXQgYWxs+/== aGVsbG8gd29ybGQ 5f4dcc3b5aa765d61d8327deb882cf99",
    "<|bos|> <|endoftext|><|im_start|>user\n<|im_end|> <s></s> [INST] <think> </think> <unk> <pad> <0x0A>",
)


def difficult_texts(control_tokens: Iterable[str]) -> list[str]:
    """Texts of about 60 KB in all; the control tokens stand in them as ordinary characters."""
    pairs = "".join(left + right for left in _ODD for right in _ODD)
    between = "".join(f"x{odd}1{odd} {odd}\n" for odd in _ODD)
    controls = "".join(f"{name} a{name}{name}b\n" for name in control_tokens)
    runs = [
        " " * 3_000 + "a",
        "\n" * 2_000,
        "a" * 4_000,
        "!" * 2_000,
        "7" * 2_000,
        "é" * 1_500,
        "中" * 1_500,
        "\t \n" * 500,
    ]
    return [CANARY, pairs, between, controls, "", *_PASSAGES, "".join(_PASSAGES), *runs]
