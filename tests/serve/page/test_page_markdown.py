"""Markdown of replies: hostile text stays text; a reply that grows is drawn as a whole one, and only where it grows."""

import random
from pathlib import Path

from page_server import delta, end, said

DOCS = Path(__file__).parents[3] / "docs"
HERE = Path(__file__).parent
# What a model may say to reach the person's browser, keys or eyes; every piece must stay inert.
HOSTILE = (HERE / "hostile.md").read_text("utf-8")
FORBIDDEN = "script, style, img, svg, math, iframe, object, embed, form, input, button, base, link, meta, details"
OUR_OWN = "[role=group] > .code-head"  # the copy button over code
ATTRIBUTES = """() => [...new Set([...document.querySelectorAll(".markdown *")]
    .filter((one) => !one.closest(".code-head")).flatMap((one) => one.getAttributeNames()))].sort()"""
FETCHED = """() => performance.getEntriesByType("resource").map((entry) => new URL(entry.name))
    .filter((url) => url.host !== location.host || /leak|[/]x$/.test(url.pathname)).map(String)"""
# Markdown of which a beginning means something else than the whole.
DIFFICULT = [
    "36.", "1984.\n\nOr so.", "a\n---\nb", "- a\n\n  b\n- c\n\n\nd", "[x][1]\n\ntext\n\n[1]: https://example.org",
    "```\na\n\nb\n```\n~~~\nc", "> a\nb\n\n> c", "| a | b |\n|---|---|\n| 1 | 2 |\n\nend", "- a\n- \n- b\n\n1) c",
    "1. a\n   ```py\n   b\n   ```\n2. c", "\r\na\r\n\r\nb\rc", "    code\n\n    more\n\nx", "*open **both",
    "a\n\n<b>\n\nc", "$$\na_b_c\n$$\n\nd", "# a\n## b\n***\n", "\\[\nx\n\\]", "",
]  # fmt: skip
DIFFERENT = """async ([documents, cuts]) => {
    const { markdownView } = await import("./markdown.js");
    const drawn = (node) => node.innerHTML.replace(/<div class="open">([\\s\\S]*)<\\/div>$/, "$1");
    return documents.filter((text, index) => {
        const grown = markdownView();
        for (const cut of cuts[index]) grown.update(text.slice(0, cut));
        const whole = markdownView();
        for (const view of [grown, whole]) {
            view.update(text);
            view.close();
        }
        return drawn(grown.node) !== drawn(whole.node);
    });
}"""
NUM_ITEMS = """async (texts) => {
    const { markdownView } = await import("./markdown.js");
    return texts.map((text) => {
        const view = markdownView();
        view.update(text);
        return view.node.querySelectorAll("li").length;
    });
}"""
# Each is drawn in milliseconds; were the time to grow with the square of the length, it would be seconds and more.
COLOURED = """async (texts) => {
    const { coloured } = await import("./code_colours.js");
    const begun = performance.now();
    const drawn = texts.map(([language, text]) => {
        const place = document.createElement("code");
        place.append(...coloured(text, language));
        return place;
    });
    if (performance.now() - begun > 10_000) throw new Error("too slow");
    const same = drawn.every((place, index) => place.textContent === texts[index][1]);
    return [same, drawn.slice(0, 4).map((place) => [...place.querySelectorAll("span")].map((one) => one.className))];
}"""
# What is drawn anew is in the open place or comes before it; nothing inside a finished block changes.
WATCH = """() => {
    window.told = { touched: 0, closed: new Set() };
    new MutationObserver((records) => {
        for (const { target, addedNodes } of records) {
            if (!target.closest?.(".markdown")) continue;
            const isView = target.className === "markdown";
            if (!isView && !target.closest(".open")) told.touched += 1;
            for (const node of addedNodes) {
                if (isView && node.className !== "open" && node.nodeType === 1) told.closed.add(node);
            }
        }
    }).observe(document.querySelector(".scroller"), { subtree: true, childList: true, characterData: true });
}"""
TOLD = """() => ({ touched: told.touched, closed: told.closed.size,
    there: [...told.closed].every((node) => node.isConnected),
    blocks: document.querySelectorAll(".reply .markdown > p, .reply .open > p").length })"""
TO_THE_END = "(one) => one.scrollHeight - one.scrollTop - one.clientHeight"


def test_hostile_markdown_is_inert(page, server):
    server.script = lambda body: [*said(HOSTILE), *end()]
    page.fill("#composer", HOSTILE)
    page.press("#composer", "Enter")
    page.locator("article.reply > .foot").wait_for()
    page.get_by_text("over all").first.wait_for()
    assert page.evaluate("window.pwned") is None
    forbidden = (
        page.locator(".reply .markdown")
        .locator(FORBIDDEN)
        .evaluate_all("(found, own) => found.filter((one) => !one.closest(own)).map((one) => one.outerHTML)", OUR_OWN)
    )
    assert forbidden == []
    assert page.evaluate(ATTRIBUTES) == [
        "align",
        "aria-label",
        "class",
        "href",
        "rel",
        "role",
        "tabindex",
        "target",
        "title",
    ]
    links = page.locator(".reply .markdown a").evaluate_all("links => links.map((a) => a.href)")
    assert links == ["https://example.org/?a=1&b=2", "mailto:a@example.org", "https://evil.example/leak.png?q=secret"]
    assert page.locator(".reply .markdown a:not([target=_blank][rel~=noreferrer])").count() == 0
    # Nothing was fetched: no image, no frame, and nothing from elsewhere.
    assert page.evaluate(FETCHED) == []
    text = page.locator(".reply .markdown").inner_text()
    for kept in ("<script>window.pwned = 1</script>", '<iframe srcdoc="<script>parent.pwned=5</script>"></iframe>',
                 "<script>kept as it is</script> &amp; <!-- too -->", r"\(x_1^2 < y_2\)", r"$$\frac{<b>a</b>}{b}$$",
                 "Image: secret (evil.example)", '<mark onclick=window.pwned=16>m'):  # fmt: skip
        assert kept in text, kept
    assert page.locator(".reply .markdown sub").inner_text() == "2"
    assert page.locator(".bubble").inner_text().strip() == HOSTILE.strip()  # a person's own text is text


def test_a_reply_that_grows_is_drawn_as_a_whole_one(page):
    documents = DIFFICULT + [file.read_text("utf-8") for file in sorted(DOCS.glob("*.md"))[:8]]
    draw = random.Random(1)
    cuts = [sorted(draw.sample(range(len(text) + 1), min(len(text), 12))) for text in documents]
    cuts[: len(DIFFICULT)] = [list(range(len(text) + 1)) for text in DIFFICULT]  # each of its beginnings
    assert page.evaluate(DIFFERENT, [documents, cuts]) == []
    assert page.evaluate(NUM_ITEMS, ["36.", "1. one", "7) x\n8) y"]) == [0, 1, 2]


def test_colours_change_no_character_of_code_and_hostile_code_takes_no_time(page):
    code = (Path(__file__).parents[3] / "src/gradus/core/statistics.py").read_text("utf-8")
    texts = [["python", code], ["py", 'x = "a\\"b" # "c"\n'], ["none", code], ["js", "<b>`${1}`</b> // '"]]
    hostile = ["/* " * 8_000, '"\\"' * 8_000, "`\\`" * 8_000, '"""x' * 8_000 + "'", "'''" * 8_001, "a" * 30_000]
    same, kinds = page.evaluate(COLOURED, texts + [[name, text] for text in hostile for name in ("js", "py", "sql")])
    assert same
    assert set(kinds[0]) == {"code-comment", "code-keyword", "code-number", "code-string"}
    assert kinds[1:4] == [["code-string", "code-comment"], [], ["code-string", "code-comment"]]


def test_a_reply_of_twenty_thousand_tokens_redraws_only_its_open_block(page, server):
    paragraph = "The sea was calm and the lamp **turned** slowly over it. " * 12
    num_paragraphs = 120

    def script(body):
        yield from said("```python\n" + "print('one more line of code')\n" * 300 + "```\n\n")
        for number in range(num_paragraphs):
            yield delta(content=f"{number}: {paragraph}\n\n")
            yield 0.005
        yield from end(tokens=(10, 20000))

    server.script = script
    page.evaluate(WATCH)
    page.fill("#composer", "Write.")
    page.press("#composer", "Enter")
    page.locator("article.reply > .foot").wait_for()
    seen = page.evaluate(TOLD)
    assert seen == {"touched": 0, "closed": num_paragraphs, "there": True, "blocks": num_paragraphs}
    assert page.locator(".scroller").evaluate(TO_THE_END) < 2
