"""What the page tells beside the replies: keys, figures, a conversation as a text, and where the thread stands."""

from page_server import MODELS, call, end, result, said, thought


def ask(page, text):
    num = page.locator("article.reply > .foot").count()
    page.fill("#composer", text)
    page.press("#composer", "Enter")
    page.locator("article.reply > .foot").nth(num).wait_for()


def test_every_key_of_the_list_does_what_it_says(page, server, expect):
    server.script = lambda body: [*said("Hello."), *end()]
    ask(page, "Good morning")
    page.keyboard.press("Control+/")
    page.keyboard.press("Control+/")  # once is enough
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    assert ["".join(keys.split()) for keys in dialog.locator("dt").all_inner_texts()] == [
        "Enter", "ShiftEnter", "Esc", "↑", "ShiftEsc", "CtrlShiftO", "CtrlShiftS", "CtrlK", "Ctrl/",
    ]  # fmt: skip
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)

    assert page.evaluate("document.body.className") == "with-sidebar"
    page.keyboard.press("Control+Shift+S")
    expect(page.get_by_role("searchbox", include_hidden=True)).to_be_hidden()
    page.keyboard.press("Control+k")
    assert page.evaluate("[document.body.className, document.activeElement.type]") == ["with-sidebar", "search"]
    page.keyboard.press("Shift+Escape")
    assert page.evaluate("document.activeElement.id") == "composer"
    page.keyboard.press("ArrowUp")
    assert page.get_by_label("Your message, edited").input_value() == "Good morning"
    page.keyboard.press("Control+Shift+O")
    page.locator(".suggestions").wait_for()
    page.get_by_role("button", name="Keyboard shortcuts").click()
    dialog.wait_for()


def test_keys_of_the_page_do_nothing_behind_a_dialog_and_events_without_a_key_are_passed_by(page, server, expect):
    server.script = lambda body: [*said("Hello."), *end()]
    ask(page, "Good morning")
    page.get_by_role("button", name="Settings", exact=True).click()
    for key in ("Control+Shift+O", "Control+Shift+S", "Control+k", "Control+/"):
        page.keyboard.press(key)
    expect(page.locator("dialog[open]")).to_have_count(1)
    assert page.locator("article.reply").count() == 1
    assert page.evaluate("document.body.className") == "with-sidebar"
    page.keyboard.press("Escape")
    page.evaluate("document.querySelector('#composer').dispatchEvent(new Event('keydown', { bubbles: true }))")


def test_the_think_budget_is_shown_beside_the_tokens_that_were_thought(page, server, expect):
    server.script = lambda body: [*thought("Tens first."), *said("36."), *end(tokens=(50, 30), thinking=12)]
    ask(page, "12 * 3?")
    assert "30 tokens (12 thinking)" in page.locator(".figures").inner_text()
    assert page.locator(".figures").get_attribute("title").startswith("50 tokens read, the first written after 0.")
    expect(page.locator(".budget")).to_have_count(0)  # none was set
    page.get_by_role("button", name="Generation settings").click()
    page.fill("[name=think_budget]", "48")
    page.get_by_role("button", name="Save").click()
    ask(page, "And 13 * 3?")
    assert server.requests[-1]["gradus"]["think_budget"] == 48
    bar = page.get_by_role("progressbar", name="12 of 48 tokens of the think budget")
    assert bar.evaluate("bar => bar.position") == 0.25
    page.reload()
    bar.wait_for()


def test_a_conversation_can_be_copied_and_exported_as_markdown(page, server):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    server.models = {"object": "list", "data": MODELS}

    def script(body):
        yield from thought("Multiply.\n\nThen round.")
        yield call("c1", "calculator", {"expression": "12 * 3"})
        yield result("c1", "36 ```")
        yield from said("It is **36**.")
        yield from end()

    server.script = script
    ask(page, "12 * 3?\n- please")
    expected = """# 12 * 3? - please

## You

12 * 3?
- please

## chat

Thinking:

> Multiply.
>
> Then round.

calculator:

```
{
  "expression": "12 * 3"
}
```

````
36 ```
````

It is **36**.
"""

    def menu(entry):
        page.locator(".item").hover()
        page.get_by_role("button", name="More for 12").click()
        page.get_by_role("menuitem", name=entry, exact=True).click()

    menu("Copy as Markdown")
    page.get_by_text("Copied.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == expected
    with page.expect_download() as got:
        menu("Export as Markdown")
    assert got.value.suggested_filename == "12-3-please.md"
    assert got.value.path().read_text("utf-8") == expected


GROW = """() => {
    const filler = (height) => {
        const node = document.createElement("div");
        node.style.height = `${height}px`;
        document.querySelector(".column").append(node);
    };
    const scroller = document.querySelector(".scroller");
    filler(1000);
    scroller.scrollTop = scroller.scrollHeight;
    filler(2000);  // before the browser has told of the scrolling
    return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""


def test_a_thread_that_grows_while_it_scrolls_is_followed_until_somebody_goes_up(page, server, expect):
    server.script = lambda body: [*said("Hello."), *end()]
    ask(page, "Good morning")
    page.evaluate(GROW)
    expect(page.locator(".jump")).to_be_hidden()
    page.locator(".scroller").hover()
    page.mouse.wheel(0, -300)
    expect(page.locator(".jump")).to_be_visible()
    page.locator(".jump").click()
    expect(page.locator(".jump")).to_be_hidden()
