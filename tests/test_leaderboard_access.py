"""The leaderboard page for everyone: themes, contrast, print, phones, keyboard, poor records."""

import itertools
import re

import pytest

from .made_records import made_records
from .pages import TABLES, choice, chromium, failed, names, opened, write_page, written

expect = pytest.importorskip("playwright.sync_api", reason="playwright is missing").expect

WAYS = {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 27)"}


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    return written(folder, 3, 2, 2, recipes=("plain", "orthogonal"))


@pytest.fixture
def page(browser, out):
    with opened(browser, out) as page:
        yield page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_systems_until_one_is_chosen(browser, out, scheme):
    other = {"light": "dark", "dark": "light"}[scheme]
    with opened(browser, out, color_scheme=scheme) as page:
        colour = "getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(colour) == WAYS[scheme]
        choice(page, "Theme").select_option(other)
        assert page.evaluate(colour) == WAYS[other]
        page.emulate_media(media="print")
        assert page.evaluate(colour) == WAYS["light"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_of_text_stand_out_from_what_is_behind_them(browser, out, theme):
    with opened(browser, out, f"#theme={theme}") as page:
        colours = page.evaluate(
            """() => Object.fromEntries(
              ["page", "panel", "raised", "wash", "ink", "soft", "mark", "bad"].map((name) => {
                const probe = document.body.appendChild(document.createElement("i"));
                probe.style.color = `var(--${name})`;
                return [name, getComputedStyle(probe).color];
              }))"""
        )
    for behind, text in itertools.product(
        ("page", "panel", "raised", "wash"), ("ink", "soft", "mark", "bad")
    ):
        assert contrast(colours[behind], colours[text]) >= 4.5, (behind, text)


def contrast(one, other):
    """Contrast ratio of two colours as WCAG 2 defines it."""

    def luminance(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_definition():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.01)


def test_print_has_every_table_and_no_controls(browser, tmp_path):
    with opened(browser, written(tmp_path, 3, 1, 12)) as page:
        assert page.locator(TABLES).count() < 12, "tables far below are not made at first"
        page.emulate_media(media="print")
        expect(page.locator(TABLES)).to_have_count(12)
        expect(page.locator("#bar")).to_be_hidden()


@pytest.mark.parametrize("number", [3, 30])
def test_a_phone_scrolls_tables_and_nothing_else_sideways(browser, tmp_path, number):
    folder = written(tmp_path, number, 2, 2)
    with opened(browser, folder, viewport={"width": 390, "height": 800}) as page:
        page.locator("section.task").first.scroll_into_view_if_needed()
        names(page).nth(1).click()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert choice(page, "Scenario").is_hidden()
        page.get_by_role("button", name="Filters").click()
        choice(page, "Scenario").select_option("class[classes=[1]]")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        box = page.locator("section.task:visible .wide")
        box.evaluate("box => box.scrollLeft = 300")
        cell, frame = names(page, 1).first.bounding_box(), box.bounding_box()
        assert frame["x"] <= cell["x"] < frame["x"] + 60, "the name of a row stays in view"


def test_everything_has_a_name_for_those_who_cannot_see_it(page):
    page.get_by_role("button", name="method-01").first.click()
    page.locator("summary", has_text="Columns").click()
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("table").count() == page.locator("table > caption").count()
    unnamed = """elements => elements.filter(one => !one.labels?.length
        && !one.getAttribute("aria-label") && !one.textContent.trim()).length"""
    assert page.locator("input, select, button").evaluate_all(unnamed) == 0
    silent = """drawings => drawings.filter(one => one.getAttribute("aria-hidden") !== "true"
        && !one.querySelector("title") && !one.closest("[role=img][aria-label]")).length"""
    assert page.locator("svg").count() > 10
    assert page.locator("svg").evaluate_all(silent) == 0
    ids = page.locator("[id]").evaluate_all("elements => elements.map(one => one.id)")
    assert len(ids) == len(set(ids))


def test_tab_reaches_the_controls_and_then_the_tables(page):
    reached = []
    focus = "(e => e.name || e.id || e.textContent.trim())(document.activeElement)"
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(focus))
        if reached[-1] == "original (identity)":
            break
    wanted = ["Skip to the tables", "find", "scenario", "recipe", "Columns", "theme", "reset",
              "copy", "original (identity)"]  # fmt: skip
    assert [name for name in reached if name in wanted] == wanted


def test_without_script_the_page_says_where_the_tables_are(browser, out):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((out / "leaderboard.html").as_uri())
    expect(page.locator("header .warning")).to_contain_text("leaderboard.md")
    expect(page.locator("table.standings tbody tr")).to_have_count(6)
    context.close()


BAD = {
    "no records": lambda records: [],
    "all failed": lambda records: [failed(record) for record in records],
    "no retrained": lambda records: [r for r in records if r.method != "retrain"],
    "methods alone": lambda records: [r for r in records if r.method.startswith("method")],
}


@pytest.mark.parametrize("case", list(BAD))
def test_poor_records_give_a_page_that_says_so(browser, tmp_path, case):
    found = made_records(3, 2, 1)
    write_page(tmp_path, BAD[case](found.records), found.banks, found.attacks)
    says = {"no records": "There are no records.", "all failed": "diverged",
            "no retrained": "not run", "methods alone": "not run"}  # fmt: skip
    with opened(browser, tmp_path) as page:
        assert says[case] in page.locator("body").inner_text()
        for button in page.locator("button.name").all():
            button.click()
        count = {"no records": 0, "all failed": 5, "no retrained": 4, "methods alone": 3}
        expect(page.locator(".evidence")).to_have_count(count[case])
