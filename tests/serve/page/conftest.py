"""A browser for the chat page, and the page open before a stand-in server."""

import shutil

import page_server
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium under Playwright, which keeps an event loop running that other tests must not meet."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'gradus[dev]'"
    )
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def expect(browser):
    """Playwright's assertions, which look again until what a page draws by and by is there."""
    from playwright.sync_api import expect

    expect.set_options(timeout=120_000)  # of a busy machine
    return expect


@pytest.fixture(scope="module")
def server():
    with page_server.running(lambda body: [*page_server.said("Hello."), *page_server.end()]) as running:
        yield running


@pytest.fixture
def page(browser, server):
    """A fresh page before the stand-in at desktop size; at its end nothing may have gone wrong that it did not expect.

    page.wrong: what the console and uncaught errors said. Tests that provoke such lines take them out.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened = context.new_page()
    opened.set_default_timeout(120_000)  # of a busy machine
    opened.wrong = []
    opened.on(
        "console", lambda message: opened.wrong.append(message.text) if message.type in ("error", "warning") else None
    )
    opened.on("pageerror", lambda error: opened.wrong.append(str(error)))
    opened.goto(server.url)
    opened.locator(".suggestions").wait_for()
    yield opened
    wrong = opened.wrong
    context.close()
    assert wrong == []
