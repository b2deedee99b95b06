"""Pages of the leaderboard for tests: the data inside them, and a browser without a network."""

import base64
import json
import re
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest

from unlearnbench.bench.leaderboard import build
from unlearnbench.bench.page import html

from .made_records import made_records

TABLES = "section.task table.leaderboard"
NAMES = "tbody th[scope=row] .name"
CHROMIUM = Path("/usr/bin/chromium")


def data_in(text):
    """What the script of a page shows, as JSON values."""
    packed = re.search(r'id="data">([A-Za-z0-9+/=]*)<', text)[1]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


@contextmanager
def chromium():
    """A headless browser; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no browser at {CHROMIUM}")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield browser
        browser.close()


@contextmanager
def opened(browser, folder, state="", **options):
    """The page opened from disk without a network; any console message fails the test."""
    # tall, so that the first tables are in view and so are made
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 2400}} | options)
    context.set_offline(True)
    page = context.new_page()
    page.set_default_timeout(10_000)
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((folder / "leaderboard.html").as_uri() + state)
    page.wait_for_selector("html[data-ready=yes]")
    yield page
    context.close()
    assert messages == []
    assert [url for url in requests if not url.startswith(("file:", "blob:", "data:"))] == []


def write_page(folder, records, banks=(), attacks=()):
    """The page alone, without figures, which take longest to make."""
    board = build(records, banks, attacks)
    text = html(board, [[] for _ in board.tables], records)
    (folder / "leaderboard.html").write_text(text, encoding="utf-8")


def written(folder, *args, **options):
    write_page(folder, *made_records(*args, **options))
    return folder


def choice(page, name):
    return page.get_by_role("combobox", name=name)


def names(page, number=0):
    return page.locator(TABLES).nth(number).locator(NAMES)


def failed(record):
    return record.model_copy(
        update={"status": "failed", "reason": "diverged", "metrics": {}, "attack": {}}
    )
