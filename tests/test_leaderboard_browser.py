"""The leaderboard page in a browser: sorting, filters, state in the address, evidence."""

import re

import pytest

from unlearnbench.bench.published import published_for
from unlearnbench.bench.tablecell import TIMES_SIGN

from .made_records import made_records
from .pages import NAMES, TABLES, choice, chromium, failed, names, opened, write_page, written

expect = pytest.importorskip("playwright.sync_api", reason="playwright is missing").expect

REFERENCES = ["original (identity)", "retrained", "retrained, other seed"]


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return written(tmp_path_factory.mktemp("three"), 3, 2, 2, recipes=("plain", "orthogonal"))


@pytest.fixture
def page(browser, out):
    with opened(browser, out) as page:
        yield page


def expect_methods(page, methods, references=REFERENCES, number=0):
    expect(names(page, number)).to_have_text([*references, *methods])


def head(page, text):
    return page.locator(TABLES).first.locator("thead th", has_text=text).first


def test_both_tables_are_there_with_references_first(page):
    expect(page.locator(TABLES)).to_have_count(2)
    assert names(page).all_inner_texts()[:6] == REFERENCES * 2
    expect(page.get_by_role("status")).to_have_text("12 rows in 2 of 2 tasks")


def test_sorting_one_table_sorts_all_and_references_stay(page):
    for way in (1, -1):
        head(page, "unlearn s").click()
        for number in (0, 1):
            wanted = [f"method-0{i // 2}" for i in range(6)][::way]
            expect_methods(page, wanted, REFERENCES * 2, number)
    expect(page).to_have_url(re.compile("sort=unlearn-s%3Adesc"))


def test_rows_sort_by_value_and_what_is_not_known_or_does_not_count_stays_last(browser, tmp_path):
    found = made_records(4, 1, 1)
    # 9 < 25 < 100 by value; as text "100" would come first
    speedups = {"method-00": 100.0, "method-01": 9.0, "method-02": 25.0}
    leaks = {"method-00": 0.7, "method-01": 1.0, "method-02": 0.95}
    records = []
    for r in found.records:
        if r.method == "method-03":
            r = failed(r)
        elif r.method in speedups:
            metrics = r.metrics | {"ulira.privacy/acc": leaks[r.method]}
            attack = r.attack | ({"suspicion": "it peeked"} if r.method == "method-02" else {})
            times = r.times | {"speedup": speedups[r.method]}
            r = r.model_copy(update={"metrics": metrics, "times": times, "attack": attack})
        records.append(r)
    write_page(tmp_path, records, found.banks, found.attacks)
    wanted = {"speed-up": [["01", "02", "00", "03"], ["00", "02", "01", "03"]],
              "null band": [["00", "01", "02", "03"], ["01", "00", "02", "03"]]}  # fmt: skip
    with opened(browser, tmp_path) as page:
        for text, orders in wanted.items():
            for order, way in zip(orders, ("ascending", "descending"), strict=True):
                head(page, text).click()
                expect(head(page, text)).to_have_attribute("aria-sort", way)
                expect_methods(page, [f"method-{number}" for number in order])


def test_a_header_sorts_by_keyboard(page):
    head(page, "unlearn s").get_by_role("button").press("Enter")
    expect(page).to_have_url(re.compile("sort=unlearn-s%3Aasc"))
    expect(head(page, "unlearn s")).to_have_attribute("aria-sort", "ascending")


def test_search_narrows_methods_alone(page):
    page.get_by_role("searchbox").fill("method-01")
    assert names(page).all_inner_texts() == [*REFERENCES * 2, "method-01", "method-01"]
    expect(page.get_by_role("status")).to_have_text("4 rows in 2 of 2 tasks")
    page.get_by_role("searchbox").fill("no such method")
    expect(page.locator("section.task:visible")).to_have_count(0)
    expect(page.locator("#nothing")).to_be_visible()


def test_filters_hide_tasks_and_rows(page):
    choice(page, "Scenario").select_option("class[classes=[1]]")
    expect(page.locator("section.task:visible h2")).to_have_text(["class[classes=[1]]"])
    choice(page, "Recipe").select_option("plain")
    expect(page.locator("section.task:visible").locator(NAMES)).to_have_count(3 + 3)
    expect(page.get_by_role("status")).to_have_text("3 rows in 1 of 2 tasks")
    assert choice(page, "Dataset").count() == 0, "there is one dataset, so nothing to choose"


def test_groups_of_columns_are_switched_on_and_off(page):
    assert head(page, "ToW").count() == 0
    page.locator("summary", has_text="Columns").click()
    page.get_by_label("ToW", exact=True).check()
    expect(page.locator(f"{TABLES} thead th", has_text="ToW")).to_have_count(2)
    page.get_by_label("U-LIRA %", exact=True).uncheck()
    assert page.locator(f"{TABLES} thead th", has_text=re.compile("null band")).count() == 0
    page.keyboard.press("Escape")
    expect(page.get_by_label("ToW", exact=True)).to_be_hidden()


def test_state_survives_reload_and_travels_in_the_link(browser, page, out):
    page.get_by_role("searchbox").fill("method-0")
    choice(page, "Recipe").select_option("plain")
    page.locator("summary", has_text="Columns").click()
    page.get_by_label("ToW", exact=True).check()
    page.get_by_label("forget %", exact=True).uncheck()
    choice(page, "Theme").select_option("dark")
    head(page, "speed-up").click()
    expect(head(page, "speed-up")).to_have_attribute("aria-sort", "ascending")
    head(page, "speed-up").click()
    expect(head(page, "speed-up")).to_have_attribute("aria-sort", "descending")
    names(page).nth(4).click()
    kept = seen(page)
    assert kept["open"] == ["true"]
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    assert seen(page) == kept
    with opened(browser, out, page.url[page.url.index("#") :]) as other:
        assert seen(other) == kept
    page.get_by_role("button", name="Reset").click()
    expect(page.get_by_role("searchbox")).to_have_value("")
    assert page.url.endswith("#theme=dark")


def seen(page):
    """What of the state is to be seen."""
    page.locator("tr.child").first.wait_for()
    return {
        "find": page.get_by_role("searchbox").input_value(),
        "recipe": choice(page, "Recipe").input_value(),
        "theme": page.evaluate("getComputedStyle(document.body).backgroundColor"),
        "heads": page.locator(f"{TABLES} > thead").first.inner_text(),
        "rows": names(page).all_inner_texts(),
        "open": [
            button.get_attribute("aria-expanded")
            for button in page.locator("button.name[aria-expanded=true]").all()
        ],
    }


def test_the_link_is_copied(browser, out):
    with opened(browser, out, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.get_by_role("searchbox").fill("02")
        page.get_by_role("button", name="Copy link").click()
        expect(page.get_by_role("status")).to_have_text("The link is copied.")
        assert page.evaluate("navigator.clipboard.readText()") == page.url
        assert page.url.endswith("#find=02")


def test_a_changed_address_is_followed(page):
    page.evaluate("location.hash = 'find=02&recipe=plain'")
    expect(names(page)).to_have_text([*REFERENCES, "method-02"])
    expect(page.get_by_role("searchbox")).to_have_value("02")


@pytest.mark.parametrize("key", ["Enter", " "])
def test_a_row_opens_its_evidence_by_keyboard(page, key):
    button = page.get_by_role("button", name="method-01").first
    button.press(key)
    expect(button).to_have_attribute("aria-expanded", "true")
    evidence = page.get_by_role("group", name="Evidence of method-01")
    titles = evidence.locator("h3").all_inner_texts()
    assert titles[:3] == ["Each seed", "Each class that was forgotten", "What the attack can tell"]
    assert set(titles[3:]) == {"The course of unlearning", "Most exposed examples", "Settings",
                               "Hardware and software", "Make it again"}  # fmt: skip
    button.press(key)
    expect(evidence).to_have_count(0)


def test_evidence_shows_the_numbers_of_the_records(browser, tmp_path):
    found = made_records(2, 2, 2)
    records = []
    for record in found.records:
        if record.method == "method-01" and record.scenario == "class[classes=[0]]":
            numbers = {"forget_acc": 0.1 + 0.2 * record.seed, "test_acc": 0.9, "retain_acc": 0.8}
            gaps = {"gap_forget_acc": 0.05, "gap_test_acc": 0.0125}
            times = {"unlearn_s": 2.0 + record.seed, "speedup": 5.0}
            changes = {"metrics": record.metrics | numbers | gaps, "times": record.times | times}
            record = record.model_copy(update=changes)
        records.append(record)
    write_page(tmp_path, records, found.banks, found.attacks)
    keys = [r.key[:12] for r in records if r.method == "method-01"][:2]
    with opened(browser, tmp_path) as page:
        page.get_by_role("button", name="method-01").first.click()
        evidence = page.locator(".evidence")
        seeds = evidence.locator(".seeds tbody tr").all_inner_texts()
        assert [line.split() for line in seeds] == [
            ["0", "ok", "10.0", "5.00", "80.0", "90.0", "1.25", "2", f"5{TIMES_SIGN}", keys[0]],
            ["1", "ok", "30.0", "5.00", "80.0", "90.0", "1.25", "3", f"5{TIMES_SIGN}", keys[1]],
        ]
        classes = [x.split() for x in evidence.locator(".classes tbody tr").all_inner_texts()]
        # 20 % is the mean of 10 and 30 %; the gap of 5 points is the worse of the two classes
        assert classes[0][:5] == ["0", "20.0", "5.00", "90.0", "1.25"]
        assert [line[0] for line in classes] == ["0", "1", "mean", "worst"]
        assert classes[3][:5] == ["worst", "20.0", "0", "5.00", "0"]
        curve = evidence.locator(".course figure").first
        curve.locator("summary").click()
        curve.locator("table").wait_for()
        assert curve.locator("tbody tr").all_inner_texts()[:3] == [
            "seed 0\t1\t0.9", "seed 0\t2\t0.7", "seed 0\t3\t0.6"]  # fmt: skip
        roc = evidence.locator(".roc .key").inner_text().split("\n")
        assert roc == ["method-01", "original (identity)", "retrained", "coin"]
        exposed = next(a for a in found.attacks if a.key == records_of(records)).most_exposed
        shown = evidence.locator(".exposed tbody tr").first.inner_text().split()
        assert shown == [str(exposed[0][0]), f"{100 * exposed[0][1]:.0f}"]
        sweep = evidence.locator(".reproduce pre").inner_text()
        assert 'name = "method-01"' in sweep
        assert f"unlearnbench report {keys[0]}" in evidence.inner_text()


def records_of(records):
    """Key of the attack of the row that was opened."""
    return next(r.attack["scores"] for r in records if r.method == "method-01")


def test_names_are_text_and_never_html(browser, tmp_path):
    # with an entity, which DataTables would decode in what it searches
    evil = "<img src=x onerror=alert(1)></script><script>alert(2)</script>&amp;"
    found = made_records(1, 1, 1)
    change = {"method": evil, "hyperparameters": {evil: evil}, "course": {"loss": [1.0, 2.0]}}
    records = [
        r.model_copy(update=(change if r.method == "method-00" else {}) | {"scenario": evil})
        for r in found.records
    ]
    write_page(tmp_path, records, found.banks, found.attacks)
    with opened(browser, tmp_path) as page:
        alerts = []
        page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
        expect(page.locator("section.task h2")).to_have_text(evil)
        button = names(page).last
        assert button.inner_text().startswith(evil)
        button.click()
        assert evil in page.locator(".settings").inner_text()
        page.get_by_label("Search").fill("img")
        assert page.locator("img").count() == 0
        assert alerts == []


def test_links_in_the_page_keep_the_state(page):
    choice(page, "Recipe").select_option("plain")
    page.get_by_role("link", name="class[classes=[1]]").click()
    assert "recipe=plain&at=" in page.url
    page.get_by_role("link", name="What the columns mean").click()
    assert "recipe=plain&at=" in page.url
    expect(page.locator("#legend")).to_be_in_viewport()


def test_published_figures_are_columns_of_their_own_on_demand(browser, tmp_path):
    found = made_records(0, 1, 1)
    about = {"dataset": "cifar10", "model": "resnet18", "scenario": "random[fraction=0.1]"}
    records = [r.model_copy(update=about) for r in found.records]
    figures = [f for f in published_for(*about.values(), "retrain") if f.metric == "test_acc"]
    assert figures, "nothing is published on this task; take another"
    write_page(tmp_path, records)
    with opened(browser, tmp_path) as page:
        expect(page.locator(f"{TABLES} thead th", has_text="source")).to_have_count(0)
        page.locator("summary", has_text="Columns").click()
        page.get_by_label("published", exact=False).check()
        expect(page.locator(f"{TABLES} thead th", has_text="source")).to_have_count(1)
        row = page.locator(f"{TABLES} tbody tr", has=page.get_by_text("retrained", exact=True))
        assert figures[0].short in row.inner_text()
