"""The chat page before the server itself, over a small model that knows a few conversations by heart."""

import re
import urllib.request


def test_the_server_hands_out_the_page_and_answers_it(browser, running):
    with urllib.request.urlopen(running.url) as answer:
        assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        names = re.findall(r'(?:src|href)="([^"]+)"', answer.read().decode())
    for name in [*names, "vendor/purify.es.mjs", "vendor/marked.esm.js"]:
        wanted = urllib.request.Request(f"{running.url}/{name}", headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(wanted) as answer:
            assert answer.headers["Content-Encoding"] == "gzip" or int(answer.headers["Content-Length"]) < 500
            kind = {"js": "text/javascript", "mjs": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
            assert answer.headers["Content-Type"].split(";")[0] == kind[name.rsplit(".", 1)[1]]

    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(120_000)
    wrong = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(running.url)
    page.locator(".suggestions").wait_for()
    page.get_by_role("button", name="Generation settings").click()
    page.locator("dialog [name=temperature]").fill("0")
    page.locator("dialog [name=max_tokens]").fill("150")
    page.get_by_role("button", name="Save").click()
    page.get_by_label("Think", exact=True).select_option("on")
    page.fill("#composer", "what is 12 * 3?")
    page.press("#composer", "Enter")
    page.locator("article.reply > .foot").wait_for()
    page.locator(".think summary").click()
    assert page.locator(".think-body").inner_text() == "The calculator knows 12 * 3."
    assert page.locator(".call summary").inner_text().split("\n") == ["Calculator", "12 * 3", "= 36"]
    assert page.locator(".reply .markdown").inner_text() == "12 * 3 = 36."
    assert re.search(r"· \d+ tokens", page.locator(".figures").inner_text())
    # What was thought, called and found goes back in a form that the server takes.
    page.fill("#composer", "hello")
    page.press("#composer", "Enter")
    page.locator("article.reply > .foot").nth(1).wait_for()
    assert page.locator(".failure").count() == 0
    # What it refuses is told in its own words.
    page.fill("#composer", "hello " * 2000)
    page.press("#composer", "Enter")
    page.locator(".failure", has_text="The server refused the request").wait_for()
    assert re.search(r"\d,?\d* tokens", page.locator(".failure").inner_text())
    assert [text for text in wrong if "status of 400" not in text] == []
    context.close()
