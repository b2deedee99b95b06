"""The files of the leaderboard: the same bytes again, an offline page, and figures."""

import re
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import pytest

from unlearnbench.bench.figures import draw
from unlearnbench.bench.leaderboard import build
from unlearnbench.bench.record import Record
from unlearnbench.bench.render import write_leaderboard

CHROMIUM = Path("/usr/bin/chromium")
SPEEDUPS = {"retrain": 1.0, "finetune": 9.0, "scrub": 100.0, "svd": 25.0}


def record(method, seed, **changes):
    accuracy = {"forget_acc": 0.5, "retain_acc": 0.99, "test_acc": 0.9 + seed / 100}
    times = {"unlearn_s": 60 / SPEEDUPS.get(method, 600), "prepare_s": 0.0}
    if method in SPEEDUPS:
        times["speedup"] = SPEEDUPS[method]
    gaps = {"gap_forget_acc": 0.04, "gap_retain_acc": 0.0, "gap_test_acc": 0.002, "tow": 0.95}
    fields = {
        "sweep": "tests",
        "key": f"{method}{seed}{changes.get('scenario')}",
        "dataset": "digits",
        "model": "resnet18",
        "recipe": "plain",
        "scenario": "class[classes=[3]]",
        "forget_request": "f0",
        "forget_size": 10,
        "retain_size": 90,
        "method": method,
        "seed": seed,
        "status": "ok",
        "metrics": accuracy | gaps,
        "times": times,
    }
    fields |= changes
    if fields["status"] != "ok":
        fields |= {"metrics": {}, "times": {}}
    return Record(**fields)


@pytest.fixture(scope="module")
def records():
    made = [record(method, seed) for method in ("identity", *SPEEDUPS) for seed in (0, 1)]
    made += [record(m, 0, scenario="random[fraction=0.1]") for m in ("retrain", "scrub")]
    made.append(record("neggrad", 0, status="failed", reason="<script>alert('`x` & y')</script>"))
    made.append(record("head-mask", 0, status="skipped", reason="only whole classes"))
    return made


@pytest.fixture(scope="module")
def out(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaderboard")
    write_leaderboard(records, folder)
    return folder


def test_returns_the_files_that_it_wrote(records, tmp_path):
    written = write_leaderboard(records, tmp_path)
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert {path.relative_to(tmp_path).as_posix() for path in written} == {
        "leaderboard.md",
        "leaderboard.csv",
        "leaderboard.html",
        *(f"figures/digits-resnet18-{s}.{t}" for s in ("class", "random") for t in ("svg", "png")),
    }


def test_same_records_give_the_same_bytes(records, out, tmp_path):
    for path in write_leaderboard(records, tmp_path):
        assert path.read_bytes() == (out / path.relative_to(tmp_path)).read_bytes(), path.name


def test_records_without_any_ok_cell_still_give_a_leaderboard(tmp_path):
    records = [record("scrub", 0, status="failed", reason="diverged")]
    names = {path.name for path in write_leaderboard(records, tmp_path)}
    assert names == {"leaderboard.md", "leaderboard.csv", "leaderboard.html"}
    assert "No figure" in (tmp_path / "leaderboard.md").read_text()
    write_leaderboard([], tmp_path)
    assert "There are no records." in (tmp_path / "leaderboard.html").read_text()


class Page(HTMLParser):
    """Collects what a browser would load, the ids, and the text that a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.ids, self.shown, self.scripts, self.inside = [], [], [], 0, ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.scripts += tag == "script"
        for name, value in attrs:
            if name in {"src", "srcset", "poster", "data"} or (
                name.endswith("href") and tag != "a"
            ):
                self.loads.append(value)
            self.ids += [value] if name == "id" else []

    def handle_data(self, data):
        if self.inside not in {"script", "style"}:
            self.shown.append(data)


def test_page_loads_nothing_and_is_escaped(out):
    text = (out / "leaderboard.html").read_text()
    page = Page(text)
    assert [url for url in page.loads if not url.startswith(("#", "data:"))] == []
    assert not re.search(r"@import|url\((?!#)", text[: text.index("</style>")])
    assert page.scripts == 2
    assert "<script>alert" not in text
    # what stands between backquotes is shown as code, the rest as it is written
    assert "<script>alert('x & y')</script>" in "".join(page.shown).replace("\n", "")


def test_ids_of_the_page_are_unique(out):
    ids = Page((out / "leaderboard.html").read_text()).ids
    assert len(ids) == len(set(ids))


def test_figures_are_inlined_with_words_for_those_who_cannot_see_them(out):
    text = (out / "leaderboard.html").read_text()
    assert text.count("<svg") == 2
    assert len(re.findall(r'role="img" aria-label="Scatter plots for [^"]*scrub', text)) == 2
    for path in (out / "figures").glob("*.svg"):
        assert ET.fromstring(path.read_text()).tag.endswith("svg")
    for path in (out / "figures").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_figure_says_which_methods_it_leaves_out_and_why(records):
    records = [*records, record("osp", 0)]
    drawing = draw(build(records).tables[0])
    assert drawing is not None
    assert "neggrad (1 failed)" in drawing.caption
    assert "head-mask" not in drawing.caption  # a control: it is shown with the references
    assert "osp (no speed-up or no retrained model)" in drawing.caption


def test_drawing_leaves_the_settings_of_the_caller_alone(records):
    mpl.get_backend()  # comparing would choose one, so it is chosen before
    before = mpl.rcParams.copy()
    draw(build(records).tables[0])
    assert mpl.rcParams == before


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no browser at {CHROMIUM}")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield browser
        browser.close()


@contextmanager
def opened(browser, folder):
    """The page opened from disk without a network; any console message fails the test."""
    context = browser.new_context()
    context.set_offline(True)
    page = context.new_page()
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((folder / "leaderboard.html").as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    yield page
    context.close()
    assert messages == []
    assert [url for url in requests if not url.startswith(("file:", "blob:", "data:"))] == []


@pytest.fixture
def page(browser, out):
    with opened(browser, out) as page:
        yield page


def expect_rows(page, *methods):
    playwright = pytest.importorskip("playwright.sync_api")
    names = page.locator("table.leaderboard").first.locator("tbody th")
    playwright.expect(names).to_have_text(list(methods))


REFERENCES = ["original (identity)", "retrained", "retrained, other seed"]


def test_clicking_a_header_sorts_by_value_below_the_references(page):
    first, unknown = [*REFERENCES, "head-mask"], ["neggrad"]
    expect_rows(page, *first, "finetune", "scrub", "svd", *unknown)
    header = page.locator("table.leaderboard").first.locator("th", has_text="speed-up")
    header.click()
    # 9 < 25 < 100 by value; as text "100" would come first; what is unknown stays last
    expect_rows(page, *first, "finetune", "svd", "scrub", *unknown)
    header.click()
    expect_rows(page, *first, "scrub", "svd", "finetune", *unknown)
    header.click()
    expect_rows(page, *first, "finetune", "scrub", "svd", *unknown)


def attacked(method, acc, **changes):
    """A record with U-LIRA; 0.1 either side of a half is the null band."""
    made = record(method, 0, attack={"shadows": 16, "examples": 9, "views": 1} | changes)
    found = {"acc": acc, "se": 0.01, "auc": acc, "auc_se": 0.01, "p": 0.5, "null_lo": 0.4,
             "null_hi": 0.6, "null_mean": 0.5, "null_sd": 0.05}  # fmt: skip
    found = {f"ulira.privacy/{name}": value for name, value in found.items()}
    return made.model_copy(update={"metrics": made.metrics | found})


@pytest.fixture(scope="module")
def attacked_out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    records = [
        attacked("identity", 0.9),
        attacked("retrain", 0.5),
        attacked("finetune", 0.95),
        attacked("scrub", 1.0),  # as text it would be the least
        attacked("svd", 0.7),
        attacked("osp", 0.4, suspicion="<b>it peeked"),
        record("neggrad", 0, attack={"reason": "it diverged on shadow 3"}),
    ]
    write_leaderboard(records, folder)
    return folder


def test_the_page_of_an_attack_is_whole_without_its_script(attacked_out):
    text = (attacked_out / "leaderboard.html").read_text()
    shown = " ".join("".join(Page(text).shown).split())
    assert "U-LIRA %" in shown
    assert "70.0 ± 2.0<small>40.0\u201360.0</small>" in text
    assert "<b>it peeked. Its figures do not count (\u2717)." in shown
    assert "osp: <b>it" in shown
    assert "<s>40.0 ± 2.0</s> <abbr title=" in text
    assert "no U-LIRA: neggrad \u2014 it diverged on shadow 3" in shown
    assert text.count("<svg") == 2
    ids = Page(text).ids
    assert len(ids) == len(set(ids))


def test_rows_sort_by_ulira_and_what_does_not_count_stays_last(browser, attacked_out):
    with opened(browser, attacked_out) as page:
        header = page.locator("table.leaderboard th.sorts", has_text="null band").first
        header.click()
        expect_rows(page, *REFERENCES, "svd", "finetune", "scrub", "osp", "neggrad")
        header.click()
        expect_rows(page, *REFERENCES, "scrub", "finetune", "svd", "osp", "neggrad")
        heads = page.locator("table.leaderboard thead tr").first.locator("th")
        groups = [text for text in heads.all_inner_texts() if text.strip()]
        assert groups[:4] == ["method", "place", "status", "U-LIRA %"]
        assert page.locator("ul.notes li").count() > 0


def test_rows_can_be_filtered(page):
    page.get_by_label("Filter rows").first.fill("svd")
    expect_rows(page, "svd")


def test_page_follows_the_colour_scheme_of_the_reader(page):
    colour = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(colour) != light
    assert page.locator("figure svg").first.is_visible()
