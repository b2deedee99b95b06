"""The files of the leaderboard: the same bytes again, an offline page, and figures."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from unlearnbench.bench.attack_columns import BAND_DASH
from unlearnbench.bench.attack_rows import ACC
from unlearnbench.bench.class_breakdown import class_breakdowns
from unlearnbench.bench.leaderboard import build
from unlearnbench.bench.page import html
from unlearnbench.bench.rank_notes import standings_notes
from unlearnbench.bench.record import Record
from unlearnbench.bench.render import write_leaderboard
from unlearnbench.bench.sweep_files import LEADERBOARD_FILES
from unlearnbench.bench.tablecell import NONE, VOID

from .made_records import made_records
from .pages import data_in

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
        *LEADERBOARD_FILES,
        *(
            f"figures/digits-resnet18-{scenario}-{figure}.{kind}"
            for scenario in ("class", "random")
            for figure in ("speed", "gaps")
            for kind in ("svg", "png")
        ),
    }


def test_same_records_give_the_same_bytes(records, out, tmp_path):
    for path in write_leaderboard(records, tmp_path):
        assert path.read_bytes() == (out / path.relative_to(tmp_path)).read_bytes(), path.name


def test_records_without_any_ok_cell_still_give_a_leaderboard(tmp_path):
    records = [record("scrub", 0, status="failed", reason="diverged")]
    names = {path.name for path in write_leaderboard(records, tmp_path)}
    assert names == set(LEADERBOARD_FILES)
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
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"@import|url\(", style)
    # of the theme, the words, the table library, the data, and the page itself
    assert page.scripts == 5
    assert text.count("</script>") == 5
    assert "<script>alert" not in text
    why = [reason for table in data_in(text)["tables"] for _, reason in table["reasons"]]
    assert "<script>alert('`x` & y')</script>" in why


def test_ids_of_the_page_are_unique(out):
    ids = Page((out / "leaderboard.html").read_text()).ids
    assert len(ids) == len(set(ids))


def test_figures_are_in_the_page_with_words_for_those_who_cannot_see_them(out):
    tables = data_in((out / "leaderboard.html").read_text())["tables"]
    figures = [figure for table in tables for figure in table["figures"]]
    assert [figure["svg"][:4] for figure in figures] == ["<svg"] * 4
    assert "scrub" in figures[0]["alt"]
    assert all(re.search(r"\d", figure["alt"]) for figure in figures)
    ids = [name for figure in figures for name in re.findall(r'\bid="([^"]*)"', figure["svg"])]
    assert len(ids) == len(set(ids)), "they stand in one page"
    for path in (out / "figures").glob("*.svg"):
        assert ET.fromstring(path.read_text()).tag.endswith("svg")
    for path in (out / "figures").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


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


def test_cells_of_an_attack_are_texts_with_what_stands_beside_them(attacked_out):
    data = data_in((attacked_out / "leaderboard.html").read_text())
    [table] = data["tables"]
    heads = [data["columns"][place] for place in table["columns"]]
    first = next(i for i, head in enumerate(heads) if head["group"] == "U-LIRA %")
    cells = table["cells"][first]
    at = {row["method"]: i for i, row in enumerate(table["rows"])}
    svd, osp, neggrad = (at[name] for name in ("svd", "osp", "neggrad"))
    # 0.7 with a standard error of 0.01, and a band from 0.4 to 0.6
    assert (cells["text"][svd], cells["value"][svd]) == ("70.0", 0.7)
    assert (cells["spread"][svd], cells["beside"][svd]) == ("± 2.0", f"40.0{BAND_DASH}60.0")
    assert cells["strip"][svd] == [70, 1.96, 40, 60]
    # what does not count is marked, sorts with what is not known, and is not drawn
    assert (cells["mark"][osp], cells["value"][osp], cells["strip"][osp]) == (VOID, None, None)
    assert (cells["text"][neggrad], cells["value"][neggrad]) == (NONE, None)
    assert "osp`: <b>it peeked" in " ".join(table["notes"])
    assert ["no U-LIRA: neggrad", "it diverged on shadow 3"] in table["reasons"]


def test_every_column_is_described_once_and_every_cell_is_there(out):
    data = data_in((out / "leaderboard.html").read_text())
    ids = [column["id"] for column in data["columns"]]
    assert len(ids) == len(set(ids))
    for table in data["tables"]:
        assert len(table["cells"]) == len(table["columns"])
        for cells in table["cells"]:
            assert {len(values) for values in cells.values()} == {len(table["rows"])}


def test_rows_keep_their_names_when_tasks_are_added(records, out, tmp_path):
    few = [r for r in records if r.scenario.startswith("class")]
    write_leaderboard(few, tmp_path)
    known, less = (data_in((f / "leaderboard.html").read_text()) for f in (out, tmp_path))
    assert less["tables"][0]["id"] == known["tables"][0]["id"]
    ids = [[row["id"] for row in data["tables"][0]["rows"]] for data in (known, less)]
    assert ids[0] == ids[1]
    everywhere = [row["id"] for table in known["tables"] for row in table["rows"]]
    assert len(everywhere) == len(set(everywhere))


def test_evidence_that_many_rows_share_is_held_once():
    found = made_records(3, 2, 4)
    board = build(*found)
    data = data_in(html(board, [[] for _ in board.tables], found.records))
    rows = [row for table in data["tables"] for row in table["rows"] if "evidence" in row]
    assert len(rows) == 4 * 5, "all but the noise floor rest on cells of their own"
    assert len({row["evidence"]["machines"][0] for row in rows}) == 1
    assert len({row["evidence"]["attack"] for row in rows}) == len(data["attacks"]) == 20


def test_long_curves_are_thinned_to_their_last_epoch(records):
    course = {"loss": [float(i) for i in range(1, 1001)], "forget_acc": [0.5] * 1000}
    changed = [r.model_copy(update={"course": course}) for r in records if r.method == "scrub"]
    board = build(changed)
    data = data_in(html(board, [[] for _ in board.tables], changed))
    evidence = data["tables"][0]["rows"][-1]["evidence"]
    seed, epochs, losses, forget = evidence["curves"][0]
    assert len(epochs) == len(losses) == len(forget) <= 60
    assert (seed, epochs[-1], losses[-1]) == (0, 1000, 1000)


def test_the_standings_are_on_the_page_without_its_script():
    found = made_records(3, 2, 3)
    board = build(*found)
    text = html(board, [[] for _ in board.tables], found.records)
    shown = " ".join("".join(Page(text).shown).split())
    assert board.standings is not None
    for row in board.standings.rows:
        place = f"{'=' if row.tied else ''}{row.place}"
        assert f"{row.method} {place} {row.borda:g} {row.mean_rank:.2f} {row.rank_lo:.2f}" in shown
    for note in standings_notes(board.standings):
        assert note in shown


def test_classes_are_on_the_page_with_their_worst():
    found = made_records(3, 2, 2)
    board = build(*found)
    text = html(board, [[] for _ in board.tables], found.records)
    shown = " ".join("".join(Page(text).shown).split())
    [breakdown] = class_breakdowns(board)
    last = breakdown.summary.iloc[-1]
    mean, worst = 100 * last[f"{ACC}_mean"], 100 * last[f"{ACC}_worst"]
    wanted = f"{last['method']} 2 {mean:.1f} {worst:.1f} {last[f'{ACC}_worst_class']}"
    assert wanted in shown
