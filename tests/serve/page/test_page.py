"""The chat page in a browser, each test a whole story before a stand-in server that is scripted to the byte."""

import json
import threading

import pytest
from page_server import CUT, MODELS, Refusal, call, delta, end, endless, result, said, thought

SEARCH_RESULTS = json.dumps(
    {"results": [{"number": 1, "title": "Seoul", "url": "https://example.org/seoul", "text": "A city."},
                 {"number": 2, "title": "<b>notes</b>", "url": "javascript:alert(1)", "text": "A file."}]}
)  # fmt: skip

STORE_FOREIGN = """async () => {
    const open = indexedDB.open("gradus-chat");
    await new Promise((done) => { open.onsuccess = done; });
    const work = open.result.transaction(["heads", "bodies"], "readwrite");
    work.objectStore("heads").put({ id: "old", title: "From elsewhere", updated: 1 });
    work.objectStore("bodies").put({ id: "old", version: 9 });
    await new Promise((done) => { work.oncomplete = done; });
}"""


@pytest.fixture(autouse=True)
def stand_in(server):
    """The stand-in as it is at first."""
    server.requests.clear()
    server.keys.clear()
    server.dropped.clear()
    server.key, server.config["needs_key"], server.models = None, False, {"object": "list", "data": MODELS}
    server.script = lambda body: [*said("Hello."), *end()]
    return server


def ask(page, text):
    """Send a message and wait until its reply is complete."""
    num = page.locator("article.reply > .foot").count()
    page.fill("#composer", text)
    page.press("#composer", "Enter")
    page.locator("article.reply > .foot").nth(num).wait_for()


def answer(page, text="Hello."):
    page.locator("article.reply .markdown").last.filter(has_text=text).wait_for()


def roles(body):
    return [message["role"] for message in body["messages"]]


def shown(page):
    """Questions and replies as they stand on the page."""
    return page.locator(".bubble, .reply .markdown").all_inner_texts()


def test_a_reply_streams_with_thinking_and_tool_cards_and_goes_back_whole(page, server, expect):
    card = threading.Event()
    lamp = json.dumps(delta(content="déjà vu 🏮 ☕"), ensure_ascii=False).encode()

    def script(body):
        yield from thought("The calculator knows.\n<b>Really.</b>")
        yield call("c1", "calculator", {"expression": "0.17 * 45"})
        card.wait(120)
        yield result("c1", "7.65")
        yield call("c2", "web_search", {"query": "Seoul"})
        yield result("c2", SEARCH_RESULTS)
        yield call("c3", "calculator", {"expression": "1/0"})
        yield result("c3", "division by zero", error=True)
        # Cut inside characters of two, three and four bytes; text that looks like a call is text.
        for at in range(0, len(lamp), 3):
            yield b"data: " * (at == 0) + lamp[at : at + 3]
        yield b"\r\n\r\n: keep-alive\r\n\r\n"
        yield from said('\n\n`<tool_call>{"name": "x"}</tool_call>` <tool_call>{}</tool_call> <think>no</think>')
        yield from end(tokens=(50, 1200))

    server.script = script
    page.fill("#composer", "A tip of 17% on 45?")
    page.press("#composer", "Enter")
    page.locator(".call[data-state=running]").wait_for()
    expect(page.get_by_role("button", name="Stop the reply")).to_be_visible()
    card.set()
    page.locator("article.reply > .foot").wait_for()

    assert page.locator(".think summary").inner_text() == "Thought for a moment"
    assert not page.locator(".think-body").is_visible()
    page.click(".think summary")
    assert page.locator(".think-body").inner_text() == "The calculator knows.\n<b>Really.</b>"
    cards = page.locator(".call")
    assert [card.get_attribute("data-state") for card in cards.all()] == ["done", "done", "failed"]
    assert cards.nth(0).locator("summary").inner_text().split("\n") == ["Calculator", "0.17 * 45", "= 7.65"]
    assert cards.nth(1).locator("summary").inner_text().split("\n")[-1] == "2 results"
    cards.nth(1).locator("summary").click()
    assert page.locator(".sources a").evaluate_all("links => links.map((a) => a.href)") == ["https://example.org/seoul"]
    assert "<b>notes</b>" in page.locator(".sources").inner_text()
    text = page.locator(".reply .markdown").inner_text()
    assert text.startswith("déjà vu 🏮 ☕")
    assert '<tool_call>{"name": "x"}</tool_call> <tool_call>{}</tool_call> <think>no</think>' in text
    assert page.locator(".figures").inner_text().startswith("chat · 1,200 tokens")
    assert page.locator(".context-use").inner_text() == "1,250 of 2,048 tokens"

    ask(page, "And then?")
    sent = server.requests[1]["messages"]
    assert roles(server.requests[1]) == ["user", *["assistant", "tool"] * 3, "assistant", "user"]
    assert sent[1]["reasoning_content"] == "The calculator knows.\n<b>Really.</b>"
    (made,) = sent[1]["tool_calls"]
    assert made["function"] == {"name": "calculator", "arguments": '{"expression":"0.17 * 45"}'}
    assert sent[2] == {"role": "tool", "tool_call_id": "c1", "content": "7.65"}
    assert sent[4]["content"] == SEARCH_RESULTS
    assert sent[7]["content"].startswith("déjà vu 🏮 ☕")


def test_stop_keeps_what_was_said_and_roles_alternate_after_it(page, server):
    counting = endless("three ", first="One two ")
    server.script = counting
    page.fill("#composer", "Count")
    page.press("#composer", "Enter")
    answer(page, "three")
    page.keyboard.press("Escape")
    page.get_by_text("You stopped this reply.").wait_for()
    assert server.dropped.wait(120)  # the server hears of it
    kept = shown(page)[-1]
    assert kept.startswith("One two three")

    def silent(body):
        yield b": nothing yet\n\n"
        yield 30

    server.script = silent
    page.fill("#composer", "Go on")
    page.press("#composer", "Enter")
    page.locator(".waiting").wait_for()
    page.get_by_role("button", name="Stop the reply").click()
    page.get_by_text("You stopped this reply.").nth(1).wait_for()

    server.script = lambda body: [*said("Four."), *end()]
    ask(page, "And now?")
    assert roles(server.requests[2]) == ["user", "assistant", "user", "assistant", "user"]
    assert server.requests[2]["messages"][1]["content"].strip() == kept.strip()
    assert server.requests[2]["messages"][3]["content"] == ""

    server.script = counting
    page.fill("#composer", "On and on")
    page.press("#composer", "Enter")
    page.locator(".item-title .spinner").wait_for()
    page.locator(".item").hover()
    page.get_by_role("button", name="More for Count").click()
    page.get_by_role("menuitem", name="Delete").click()
    page.locator(".suggestions").wait_for()
    page.wait_for_timeout(1200)  # past the next save of what was being written
    assert page.locator(".item").count() == 0
    page.get_by_role("button", name="Undo").click()
    page.locator(".item-title").click()
    # What was being written may have been saved before it was deleted, and then stands below.
    page.locator("article.reply .markdown", has_text="Four.").wait_for()


def test_answers_and_questions_branch_and_every_branch_comes_back_after_a_reload(page, server, expect):
    server.script = lambda body: [*said(f"Reply {len(server.requests)}."), *end()]
    ask(page, "First")
    ask(page, "Second")
    page.get_by_role("button", name="Answer again").last.click()
    answer(page, "Reply 3.")
    assert shown(page) == ["First", "Reply 1.", "Second", "Reply 3."]
    assert server.requests[2]["messages"] == server.requests[1]["messages"]
    page.get_by_role("button", name="Previous reply").click()
    assert shown(page) == ["First", "Reply 1.", "Second", "Reply 2."]

    page.press("#composer", "ArrowUp")  # edits the last message
    field = page.get_by_role("textbox", name="Your message, edited")
    field.fill("Second, rather")
    field.press("Enter")
    answer(page, "Reply 4.")
    assert [m["content"] for m in server.requests[3]["messages"]] == ["First", "Reply 1.", "Second, rather"]
    page.locator(".question").first.hover()
    page.get_by_role("button", name="Edit your message").first.click()
    field.fill("Other")
    page.get_by_role("button", name="Send as a new branch").click()
    answer(page, "Reply 5.")
    assert shown(page) == ["Other", "Reply 5."]
    expect(page.locator(".question .pager")).to_have_text("2 / 2", use_inner_text=True)

    page.reload()
    answer(page, "Reply 5.")
    page.get_by_role("button", name="Previous version").last.click()
    assert shown(page) == ["First", "Reply 1.", "Second, rather", "Reply 4."]
    page.get_by_role("button", name="Previous version").last.click()
    assert shown(page) == ["First", "Reply 1.", "Second", "Reply 2."]
    page.get_by_role("button", name="Next reply").click()
    assert shown(page)[-1] == "Reply 3."
    page.reload()
    answer(page, "Reply 3.")  # the branch that was shown last


def test_every_failure_is_told_and_loses_nothing(page, server):
    def fails(script, title, text, num):
        server.script = script
        page.fill("#composer", f"Question {num}")
        page.press("#composer", "Enter")
        card = page.get_by_role("alert").last
        card.filter(has_text=text).wait_for()
        assert title in card.inner_text()

    ask(page, "Hello?")
    html = "<html><style>p {}</style><body><h1>Bad Gateway</h1><p>nginx</p></body></html>"
    fails(lambda body: [Refusal(502, html)], "The server failed", "Bad Gateway nginx (502", 1)
    busy = Refusal(
        429, '{"error": {"message": "Too many."}}', {"Retry-After": "7", "Access-Control-Expose-Headers": "*"}
    )
    fails(lambda body: [busy], "The server is busy", "Too many. Try again in 7 s.", 2)
    long = '{"error": {"message": "2,100 tokens do not fit into 2,048"}}'
    fails(lambda body: [Refusal(400, long)], "refused the request", "2,100 tokens do not fit into 2,048", 3)
    fails(lambda body: [*said("Half"), {"error": {"message": "No memory."}}], "The reply broke off", "No memory.", 4)
    fails(lambda body: [*said("Partly"), CUT], "The reply broke off", "before the reply was complete", 5)
    fails(lambda body: [*said("Well"), b"data: {nonsense\n\n"], "The reply broke off", "no JSON: {nonsense", 6)
    assert [text for text in shown(page) if text in ("Half", "Partly", "Well")] == ["Half", "Partly", "Well"]
    # All that was said, failures too, is still there; none of it is cut from the left.
    server.script = lambda body: [*said("Better."), *end()]
    page.get_by_role("button", name="Try again").last.click()
    answer(page, "Better.")
    assert [m["content"] for m in server.requests[-1]["messages"]] == [
        "Hello?", "Hello.", "Question 1", "", "Question 2", "", "Question 3", "", "Question 4", "Half",
        "Question 5", "Partly", "Question 6"]  # fmt: skip
    server.script = lambda body: [*end()]
    page.fill("#composer", "Nothing?")
    page.press("#composer", "Enter")
    page.get_by_text("The model ended its reply without saying anything.").wait_for()
    server.script = lambda body: [*said("Cut off"), *end("length")]
    ask(page, "Long?")
    assert "token limit" in page.locator(".notice").last.inner_text()
    page.wrong[:] = [text for text in page.wrong if "status of" not in text]  # Chromium's own lines


def test_a_key_that_ends_is_asked_for_and_the_reply_tried_again(page, server, expect):
    ask(page, "Hello?")
    server.key = "secret"
    page.fill("#composer", "Still there?")
    page.press("#composer", "Enter")
    page.get_by_role("button", name="Enter a key").click()
    page.get_by_role("textbox", name="Key").fill("secret")
    page.get_by_role("textbox", name="Key").press("Enter")
    page.get_by_text("Connected: 3 models.").wait_for()
    page.get_by_role("button", name="Try again").click()
    answer(page)
    assert server.keys[-1] == "Bearer secret"
    assert [m["content"] for m in server.requests[-1]["messages"]] == ["Hello?", "Hello.", "Still there?"]
    # It is kept for this tab alone, unless the person asks otherwise.
    kept = "() => [JSON.stringify(localStorage).includes('secret'), JSON.stringify(sessionStorage).includes('secret')]"
    assert page.evaluate(kept) == [False, True]
    page.reload()
    answer(page)
    server.config["needs_key"] = True
    page.evaluate("sessionStorage.clear()")
    page.reload()
    page.get_by_role("dialog").get_by_role("textbox", name="Key").fill("secret")
    page.get_by_role("button", name="Connect", exact=True).click()
    page.get_by_text("Connected: 3 models.").wait_for()
    # A list of models in another shape is told, and empties nothing.
    server.models = {"models": []}
    page.reload()
    answer(page)
    expect(page.locator(".item-title")).to_have_text(["Hello?"], use_inner_text=True)
    page.get_by_role("button", name="Model: No connection").click()
    page.locator("#models").get_by_text("no list of models").wait_for()
    page.wrong[:] = [text for text in page.wrong if "status of" not in text]


def test_requests_hold_what_the_person_set_and_nothing_else(page, server):
    ask(page, "Plain")
    plain = {"model": "quickstart/chat", "messages": [{"role": "user", "content": "Plain"}], "stream": True,
             "stream_options": {"include_usage": True}}  # fmt: skip
    tools = {"tools": ["calculator", "web_search"], "think": None, "think_budget": None, "search": "auto"}
    assert server.requests[-1] == {**plain, "gradus": tools}  # no limit of tokens that nobody asked for

    page.get_by_role("button", name="Generation settings").click()
    page.get_by_label("System message of this conversation").fill("Be brief.")
    for name, value in {
        "temperature": "0",
        "top_p": "0.9",
        "max_tokens": "4000",
        "seed": "0",
        "think_budget": "40",
    }.items():
        page.locator(f"dialog [name={name}]").fill(value)
    page.locator("dialog [name=stop]").fill("END\n###")
    page.get_by_role("button", name="Save").click()
    page.get_by_label("Think", exact=True).select_option("on")
    page.get_by_label("Search", exact=True).select_option("force")
    page.get_by_role("button", name="Calculator").click()
    page.reload()  # all of it is remembered
    answer(page)
    ask(page, "Set")
    sent = server.requests[-1]
    assert {name: sent[name] for name in ("temperature", "top_p", "max_tokens", "seed", "stop")} == {
        "temperature": 0, "top_p": 0.9, "max_tokens": 4000, "seed": 0, "stop": ["END", "###"]}  # fmt: skip
    assert sent["gradus"] == {"tools": ["web_search"], "think": True, "think_budget": 40, "search": "force"}
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    page.get_by_label("Search", exact=True).select_option("off")
    ask(page, "Off")
    assert server.requests[-1]["gradus"] == {"tools": [], "think": True, "think_budget": 40}

    # Another server: nothing that only gradus knows is shown or sent, earlier thinking and tool results included.
    server.models = {"data": [{"id": "llama3", "object": "model"}]}
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_role("textbox", name="Address").fill(server.url.replace("127.0.0.1", "localhost") + "v1/")
    page.get_by_role("button", name="Connect", exact=True).click()
    page.get_by_text("Connected: 1 model.").wait_for()
    assert page.locator(".switches > *").count() == 0
    server.script = lambda body: [*thought("Hm."), *said("Yes."), *end()]
    ask(page, "Other")
    ask(page, "Again")
    assert server.requests[-1]["model"] == "llama3"
    assert "gradus" not in server.requests[-1]
    assert {key for message in server.requests[-1]["messages"] for key in message} == {"role", "content"}
    server.script = lambda body: [
        delta(tool_calls=[{"index": 0, "id": "a", "type": "function", "function": {"name": "get", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"x": 1}'}}]), *end("tool_calls")]  # fmt: skip
    ask(page, "Call")
    assert page.locator(".call summary").inner_text().split("\n") == [
        "get",
        '{"x": 1}',
        "not run: this page runs no tools",
    ]


def test_stages_answer_side_by_side_and_one_goes_on(page, server, expect):
    server.script = lambda body: [*said(f"{body['model'].split('/')[1]} says {len(body['messages'])}."), *end()]
    ask(page, "Before")
    page.get_by_role("button", name="Model: chat").click()
    page.locator("#models").get_by_role("checkbox", name="base").check()
    page.locator("#models").get_by_role("checkbox", name="polish").check()
    page.keyboard.press("Escape")
    page.fill("#composer", "Both?")
    page.press("#composer", "Enter")
    page.locator(".lanes .foot").nth(2).wait_for()
    expect(page.locator(".lane-head b")).to_have_text(["chat", "base", "polish"], use_inner_text=True)
    expect(page.locator(".lanes .markdown")).to_have_text(
        ["chat says 3.", "base says 3.", "polish says 3."], use_inner_text=True
    )
    expect(page.locator(".bubble")).to_have_text(["Before", "Both?"], use_inner_text=True)
    # base runs no tools and does not think: each model is asked for what it has.
    asked = {body["model"]: body["gradus"]["tools"] for body in server.requests[1:]}
    assert asked == {"quickstart/chat": ["calculator", "web_search"], "quickstart/base": [],
                     "quickstart/polish": ["calculator", "web_search"]}  # fmt: skip
    page.reload()
    page.locator(".lanes .foot").nth(2).wait_for()
    page.fill("#composer", "More?")
    page.press("#composer", "Enter")
    page.locator(".lanes .foot").nth(5).wait_for()
    told = {body["model"]: [m["content"] for m in body["messages"]][3] for body in server.requests[-3:]}
    assert told == {f"quickstart/{name}": f"{name} says 3." for name in ("chat", "base", "polish")}
    page.locator(".lanes").last.get_by_role("button", name="Answer again").nth(1).click()
    page.locator(".lanes .foot").nth(5).wait_for()
    assert server.requests[-1]["model"] == "quickstart/base"
    page.get_by_role("button", name="Go on with this one").nth(2).click()
    assert shown(page) == ["Before", "chat says 1.", "Both?", "polish says 3.", "More?", "polish says 5."]
    expect(page.get_by_role("button", name="Model: polish")).to_be_visible()


def test_a_conversation_is_renamed_while_its_reply_is_written(page, server, expect):
    server.script = endless("three ")
    page.fill("#composer", "Count")
    page.press("#composer", "Enter")
    answer(page, "three three")
    page.get_by_role("button", name="New chat").first.click()
    page.locator(".item").hover()
    page.get_by_role("button", name="More for Count").click()
    page.get_by_role("menuitem", name="Rename").click()
    page.keyboard.type("Numbers")
    page.keyboard.press("Enter")
    page.locator(".item-title", has_text="Numbers").wait_for()
    page.wait_for_timeout(1500)  # past the next save of what is being written
    expect(page.locator(".item-title")).to_have_text(["Numbers"], use_inner_text=True)


def test_conversations_are_found_renamed_deleted_exported_and_imported(page, server, tmp_path, expect):
    for text in ("Apples are red", "Bananas are yellow"):
        ask(page, text)
        page.get_by_role("button", name="New chat").first.click()
    titles = page.locator(".item-title")
    expect(titles).to_have_text(["Bananas are yellow", "Apples are red"], use_inner_text=True)
    page.get_by_role("searchbox").fill("hello RED")
    titles.filter(has_text="Bananas").wait_for(state="detached")
    expect(titles).to_have_text(["Apples are red"], use_inner_text=True)
    page.get_by_role("searchbox").fill("")
    titles.nth(1).wait_for()

    def menu(title, entry):
        page.locator(".item", has_text=title).hover()
        page.get_by_role("button", name=f"More for {title}").click()
        page.get_by_role("menuitem", name=entry, exact=True).click()

    menu("Apples are red", "Rename")
    page.keyboard.type("Fruit")
    page.keyboard.press("Enter")
    titles.filter(has_text="Fruit").wait_for()
    menu("Bananas are yellow", "Delete")
    titles.filter(has_text="Bananas").wait_for(state="detached")
    page.get_by_role("button", name="Undo").click()
    titles.filter(has_text="Bananas").wait_for()

    with page.expect_download() as got:
        menu("Fruit", "Export as training data")
    row = json.loads(got.value.path().read_text())
    assert row == {
        "messages": [{"role": "user", "content": "Apples are red"}, {"role": "assistant", "content": "Hello."}]
    }
    page.get_by_role("button", name="Settings", exact=True).click()
    with page.expect_download() as got:
        page.get_by_role("button", name="Export all").click()
    saved = json.loads(got.value.path().read_text())
    assert (saved["format"], len(saved["conversations"])) == ("gradus-chat", 2)

    page.get_by_role("button", name="Delete all").click()
    page.get_by_role("button", name="Really delete all?").click()
    titles.first.wait_for(state="detached")
    broken = {
        **saved["conversations"][0],
        "id": "b",
        "nodes": {"root": {"id": "root", "parent": None, "children": ["x"], "chosen": "x"}},
    }
    newer = {**saved["conversations"][0], "id": "c", "version": 2}
    saved["conversations"] += [broken, newer, None]
    (tmp_path / "all.json").write_text(json.dumps(saved))
    page.get_by_label("A file to import").set_input_files(tmp_path / "all.json")
    page.get_by_text("2 imported.").wait_for()
    assert page.locator(".problem").all_inner_texts() == [
        "Conversation 3 node root has a child that is not its own.",
        "Conversation 4 has version 2; this page reads version 1.", "Conversation 5 is no object."]  # fmt: skip
    page.get_by_label("A file to import").set_input_files(tmp_path / "all.json")
    page.get_by_text("0 imported, 2 were here already.").wait_for()

    rows = [
        {"messages": [{"role": "user", "content": "12 * 3?"},
                      {"role": "assistant", "content": "", "reasoning_content": "Calculate.",
                       "tool_calls": [{"id": "c", "name": "calculator", "arguments": {"expression": "12 * 3"}}]},
                      {"role": "tool", "tool_call_id": "c", "content": "36"}, {"role": "assistant", "content": "36."}]},
        {"messages": [{"role": "robot", "content": "?"}]}, {"text": "no messages"},
        {"messages": [{"role": "system", "content": "Brief."}, {"role": "user", "content": "Unanswered"}]}]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    page.get_by_label("A file to import").set_input_files(tmp_path / "rows.jsonl")
    page.get_by_text("2 imported.").wait_for()
    expect(page.locator(".problem")).to_have_text(
        ['Row 2: a message of role "robot".', 'Row 3: no "messages".'], use_inner_text=True
    )
    page.keyboard.press("Escape")
    titles.filter(has_text="12 * 3?").click()
    answer(page, "36.")
    with page.expect_download() as got:
        menu("12 * 3?", "Export as training data")
    assert json.loads(got.value.path().read_text()) == rows[0]  # what came in goes out

    # What was deleted and came back is kept like any other.
    titles.filter(has_text="Fruit").click()
    ask(page, "And pears?")
    titles.filter(has_text="Unanswered").click()
    page.get_by_role("button", name="Answer this").click()
    answer(page, "Hello.")
    assert server.requests[-1]["messages"] == rows[3]["messages"]

    # What another version or a fault has stored is told, kept and exported, and hides nothing else.
    page.evaluate(STORE_FOREIGN)
    page.reload()
    titles.filter(has_text="From elsewhere").click()
    page.get_by_text("it has version 9; this page reads version 1").wait_for()
    expect(titles).to_have_count(5)
    titles.filter(has_text="Fruit").click()
    page.locator(".bubble", has_text="And pears?").wait_for()
