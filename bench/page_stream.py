"""Claim: a reply of 20,000 tokens stays smooth in the chat page: a frame draws only the block that is open.

The same text grows by the same pieces in Chromium, once by the page's own markdown view, and once as a page does that
draws the whole reply anew for each piece (marked and DOMPurify, the same files). Each update is followed by asking for
the height, so that layout counts. Three texts: this project's documentation, one long block of code, and one paragraph
without an end, where nothing can be left alone; there the page draws less often, which is not counted here.

    python bench/page_stream.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bench_record import machine, write_result

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
CHARACTERS_PER_TOKEN = 4

MEASURE = """async ([text, step, isOurs]) => {
    const { markdownView } = await import("./markdown.js");
    const { parse } = await import("./vendor/marked.esm.js");
    const { default: DOMPurify } = await import("./vendor/purify.es.mjs");
    const scroller = document.querySelector(".scroller");
    const view = markdownView();
    const place = isOurs ? view.node : Object.assign(document.createElement("div"), { className: "markdown" });
    const whole = (text) => place.replaceChildren(DOMPurify.sanitize(parse(text), { RETURN_DOM_FRAGMENT: true }));
    const update = isOurs ? view.update : whole;
    scroller.querySelector(".column").replaceChildren(place);
    const times = [];
    for (let at = step; at < text.length + step; at += step) {
        const begun = performance.now();
        update(text.slice(0, at));
        scroller.scrollTop = scroller.scrollHeight;
        times.push(performance.now() - begun);
        if (times.length % 20 === 0) await new Promise(requestAnimationFrame);
    }
    times.sort((a, b) => a - b);
    const seconds = times.reduce((sum, one) => sum + one, 0) / 1000;
    return { updates: times.length, seconds, median_ms: times[times.length >> 1], longest_ms: times.at(-1),
        p99_ms: times[Math.floor(times.length * 0.99)], over_50_ms: times.filter((one) => one > 50).length };
}"""


def texts(num_characters: int) -> dict[str, str]:
    """A text of each kind, so long."""
    pages = "\n\n".join(file.read_text("utf-8") for file in sorted((HERE.parent / "docs").glob("*.md")))
    source = "\n".join(file.read_text("utf-8") for file in sorted((HERE.parent / "src/gradus/model").glob("*.py")))
    code = f"```python\n{source[: num_characters - 20]}\n```\n"
    return {
        "documentation": pages[:num_characters],
        "code": code,
        "paragraph": " ".join(pages.split())[:num_characters],
    }


def measured(num_tokens: int, tokens_per_update: int) -> dict[str, Any]:
    from page_server import end, running
    from playwright.sync_api import sync_playwright

    found: dict[str, Any] = {}
    with running(lambda body: end()) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(600_000)
        page.goto(server.url)
        page.locator(".suggestions").wait_for()
        for name, text in texts(num_tokens * CHARACTERS_PER_TOKEN).items():
            given = [text, tokens_per_update * CHARACTERS_PER_TOKEN]
            found[name] = {side: page.evaluate(MEASURE, [*given, side == "page"]) for side in ("page", "whole")}
            print(name, found[name], flush=True)
        found["browser"] = browser.version
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--tokens-per-update", type=int, default=20)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "page-stream.json")
    given = parser.parse_args()
    facts = {**machine(), "tokens": given.tokens, "tokens_per_update": given.tokens_per_update}
    write_result(given.out, {**facts, "results": measured(given.tokens, given.tokens_per_update)})


if __name__ == "__main__":
    main()
