"""The report where there is little room, and on paper."""

import os
import shutil

import pytest
from walked_run import Run

from gradus.roadmap.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CANVASES = "document.querySelectorAll('canvas').length"


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """The report of a finished run in a phone's window."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'gradus[dev]'"
    )
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    report = write_report(Run(tmp_path / "home").record().finish().judge(True).folder)
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.goto(report.as_uri())
        page.locator("#ledger .card").wait_for()
        yield page
        browser.close()


def test_no_text_of_the_books_is_squeezed_into_a_column_on_a_phone(opened):
    said = opened.locator("#ledger td:last-child")
    assert min(said.evaluate_all("cells => cells.map((cell) => cell.offsetWidth)")) > 280
    assert opened.evaluate("document.documentElement.scrollWidth") == 390


def test_paper_shows_the_curves_that_nobody_has_scrolled_to(opened):
    num_plots = opened.locator("figure.chart .plot").count()
    assert opened.evaluate(CANVASES) < num_plots
    for _ in range(2):  # each once, however often it is printed
        opened.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert opened.evaluate(CANVASES) == num_plots
