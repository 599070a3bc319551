"""The chat page for everyone: by keyboard alone, by a screen reader, on a phone, in both colours, in two tabs."""

import re
import threading
import time

import pytest
from page_server import MODELS, delta, end, endless, said, thought

REPLY = (
    "A **long** line: "
    + "word " * 40
    + "\n\n```py\n"
    + "x = 1 + " * 60
    + "1\n```\n\n| a | b |\n|--|--|\n"
    + "| 1 | 2 |\n"
)
# Contrast of two colours, WCAG 2.2: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio
CONTRAST = """(pairs) => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const parts = (color) => {
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => value / 255);
    };
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const weights = [0.2126, 0.7152, 0.0722];
    const bright = (color) => parts(color).map(linear).reduce((sum, part, i) => sum + part * weights[i], 0);
    const probe = document.body.appendChild(document.createElement("i"));
    const named = (name) => {
        probe.style.color = `var(--${name})`;
        return bright(getComputedStyle(probe).color);
    };
    const found = pairs.map(([ink, ground]) => {
        const [a, b] = [named(ink), named(ground)];
        return [`${ink} on ${ground}`, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
    probe.remove();
    return found;
}"""
# Controls that a screen reader would read without a name.
NAMELESS = """() => [...document.querySelectorAll("button, input, select, textarea, a[href], summary, dialog, nav")]
    .filter((one) => one.checkVisibility({ visibilityProperty: true }))
    .filter((one) => !one.getAttribute("aria-label") && !one.innerText?.trim() && !one.labels?.[0]?.innerText.trim())
    .map((one) => one.outerHTML.slice(0, 120))"""
WIDER_THAN_THE_WINDOW = """() => [...document.querySelectorAll("body, .scroller, .column, #page, .foot-bar")]
    .filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.className)"""
# WCAG 2.2, 2.5.8: targets of at least 24 by 24.
SMALL_TARGETS = """() => [...document.querySelectorAll("button, select, summary")]
    .filter((one) => one.checkVisibility({ visibilityProperty: true }))
    .map((one) => [one.getBoundingClientRect(), one])
    .filter(([box]) => box.width > 0 && Math.min(box.width, box.height) < 24)
    .map(([box, one]) => `${one.outerHTML.slice(0, 90)} ${box.width} x ${box.height}`)"""
# How the focus shows itself, at the element or at the frame around it.
RING = """() => getComputedStyle(document.activeElement.closest(".search-field, .composer, .switch")
    ?? document.activeElement).outlineStyle"""
# What the browser keeps of its one conversation.
STORED = """async () => {
    const { everything } = await import("./store.js");
    const [conversation] = await everything();
    const nodes = Object.values(conversation?.nodes ?? {});
    const turns = nodes.filter((node) => node.turn).map((node) => node.turn);
    return {
        questions: nodes.filter((node) => node.role === "user").map((node) => node.text),
        answers: turns.map((turn) => turn.blocks.map((block) => block.text).join("")),
        statuses: turns.map((turn) => turn.status),
    };
}"""
MOVING = """() => [...document.querySelectorAll("*")]
    .filter((one) => parseFloat(getComputedStyle(one).transitionDuration) > 0).length"""
PAIRS = [(ink, ground) for ink in ("ink", "muted", "accent", "bad") for ground in ("bg", "raised", "side")]
PAIRS += [(ink, "code") for ink in ("ink", "muted", "string", "number", "keyword")]
PAIRS += [
    ("ink", "bubble"),
    ("accent", "tint"),
    ("on-accent", "accent"),
    ("ink", "bad-tint"),
    ("muted", "sunk"),
]


@pytest.fixture(autouse=True)
def stand_in(server):
    server.requests.clear()
    server.models = {"object": "list", "data": MODELS}
    server.script = lambda body: [*thought("Hm."), *said(REPLY), *end()]
    return server


def wait_until_stored(page, fits):
    until = time.monotonic() + 120
    while not fits(page.evaluate(STORED)):
        assert time.monotonic() < until, page.evaluate(STORED)
        page.wait_for_timeout(50)


FOCUSED = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText.trim()"


def test_a_conversation_is_held_by_keyboard_alone(page, server, expect):
    def focused():
        return page.evaluate(FOCUSED)

    def focus_comes_to(name):
        page.wait_for_function(f"(name) => ({FOCUSED}) === name", arg=name)

    def tab_to(name, key="Tab"):
        for _ in range(40):
            if re.fullmatch(name, focused()):
                ring = page.evaluate(RING)
                assert ring != "none" or focused() == "Message", f"{name} shows no focus"
                return
            page.keyboard.press(key)
        raise AssertionError(f"no way to {name}")

    tab_to("Message")
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    page.locator("article.reply > .foot").wait_for()
    assert server.requests[0]["messages"][0]["content"] == "One\ntwo"
    focus_comes_to("Message")
    tab_to("Answer again", "Shift+Tab")
    page.keyboard.press("Enter")
    page.locator(".pager").wait_for()
    tab_to("Previous reply", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".reply .pager")).to_have_text("1 / 2")
    focus_comes_to("Next reply")  # focus does not fall off the page
    tab_to("Thought for a moment", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".think-body")).to_be_visible()
    tab_to("Model: chat", "Shift+Tab")
    page.keyboard.press("Enter")
    page.locator("#models input:focus").wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Model: polish").wait_for()
    tab_to("Think", "Tab")
    page.keyboard.press("ArrowDown")
    tab_to("Calculator")
    page.keyboard.press("Space")
    page.keyboard.press("Control+Shift+O")
    page.locator(".suggestions").wait_for()
    page.keyboard.press("Control+k")
    focus_comes_to("Search conversations")
    page.keyboard.type("two")
    tab_to("One two")
    tab_to("More for One two")
    page.keyboard.press("Enter")
    page.get_by_role("menuitem", name="Rename").wait_for()
    page.keyboard.press("ArrowDown")
    focus_comes_to("Copy as Markdown")
    page.keyboard.press("Escape")
    page.get_by_role("menu").wait_for(state="detached")
    focus_comes_to("More for One two")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.locator("article.reply").wait_for()
    page.keyboard.type("Three")
    page.keyboard.press("Enter")
    page.locator("article.reply > .foot").nth(1).wait_for()
    assert server.requests[-1]["gradus"]["think"] is True
    assert server.requests[-1]["gradus"]["tools"] == ["web_search"]
    expect(page.locator("#announcer")).to_have_text("The reply is complete")
    tab_to("Settings", "Shift+Tab")
    page.keyboard.press("Enter")
    assert page.evaluate(NAMELESS) == []
    page.keyboard.press("Escape")
    focus_comes_to("Settings")


def test_a_phone_shows_all_of_it_and_words_stand_out_in_both_colours(browser, server):
    context = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(server.url)
    page.get_by_role("button", name="Which weekday").tap()
    page.locator("article.reply > .foot").wait_for()
    page.get_by_role("button", name="Model: chat").tap()
    page.locator("#models").get_by_role("checkbox", name="base").check()
    page.locator("#models").get_by_role("checkbox", name="polish").check()
    page.keyboard.press("Escape")
    page.fill("#composer", "More")
    page.get_by_role("button", name="Send").tap()
    page.locator(".lanes .foot").nth(2).wait_for()
    assert page.evaluate(WIDER_THAN_THE_WINDOW) == []
    assert page.evaluate(SMALL_TARGETS) == []
    assert page.evaluate(NAMELESS) == []
    page.get_by_role("button", name="Show the list of conversations").tap()
    page.locator(".item-title").wait_for()
    page.get_by_role("button", name="New chat").first.tap()
    page.locator(".suggestions").wait_for()
    assert page.locator(".sidebar").evaluate("one => one.inert")
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == "light dark"
    grounds = set()
    for look in ("light", "dark"):
        page.emulate_media(color_scheme=look)
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        faint = [(name, round(ratio, 2)) for name, ratio in page.evaluate(CONTRAST, PAIRS) if ratio < 4.5]
        assert faint == [], look
    assert len(grounds) == 2
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(MOVING) == 0
    context.close()


def test_a_second_tab_hears_of_the_first_and_a_closed_page_keeps_its_reply(page, server):
    server.script = endless("word ")
    page.fill("#composer", "Begin")
    page.press("#composer", "Enter")
    page.locator(".reply .markdown", has_text="word word").wait_for()
    other = page.context.new_page()
    other.goto(server.url)
    other.locator(".item-title", has_text="Begin").wait_for()
    # The page saves what it has every second.
    wait_until_stored(page, lambda kept: any(text.startswith("word word") for text in kept["answers"]))
    page.close()
    other.locator(".item-title", has_text="Begin").click()
    other.get_by_text("The page was closed during this reply, or another tab is still writing it.").wait_for()
    assert other.locator(".reply .markdown").inner_text().startswith("word word")
    # A draft outlives a reload.
    other.fill("#composer", "Not sent yet")
    other.reload()
    other.locator(".reply").wait_for()
    assert other.input_value("#composer") == "Not sent yet"


def test_two_tabs_that_ask_in_one_conversation_at_once_keep_what_both_say(page, server):
    go_on = threading.Event()

    def held(body):
        question = body["messages"][-1]["content"]
        yield delta(content=f"On {question}: ")
        if question != "Begin":
            while not go_on.wait(0.05):
                yield delta(content=".")
        yield from [delta(content="whole"), *end()]

    server.script = held
    page.fill("#composer", "Begin")
    page.press("#composer", "Enter")
    page.locator(".reply .markdown", has_text="On Begin: whole").wait_for()
    other = page.context.new_page()
    other.goto(server.url)
    other.locator(".item-title", has_text="Begin").click()
    other.locator(".reply .markdown", has_text="On Begin: whole").wait_for()
    for tab, question in ((page, "left"), (other, "right")):
        tab.fill("#composer", question)
        tab.press("#composer", "Enter")
        tab.locator(".reply .markdown", has_text=f"On {question}: ..").wait_for()
    # The other one heard of the first question before it asked its own.
    page.get_by_text("Another tab was writing to this conversation too.").first.wait_for()
    go_on.set()
    for tab, question in ((page, "left"), (other, "right")):
        tab.locator(".reply .markdown", has_text=re.compile(rf"On {question}: \.+whole")).wait_for()
    # The last words are saved.
    wait_until_stored(page, lambda kept: kept["statuses"] == ["done"] * 3)
    other.close()
    page.reload()
    page.locator(".reply .markdown", has_text="whole").nth(1).wait_for()
    said_by_both = page.evaluate(STORED)
    assert sorted(said_by_both["questions"]) == ["Begin", "left", "right"]
    assert [re.sub(r"\.+", ".", text) for text in sorted(said_by_both["answers"])] == [
        "On Begin: whole", "On left: .whole", "On right: .whole",
    ]  # fmt: skip
    assert said_by_both["statuses"] == ["done"] * 3
