"""What all figures share: their look, and how they become files and words."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Two colours that stand for "text" and "page": the page swaps them for its theme's own.
INK, PAPER = "#1f2933", "#fefefe"
# seaborn's "colorblind" without grey, which is for references, and without what is pale on white
COLOURS = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#56b4e9")
# 7 and 10 have no common factor: 70 methods differ in colour or shape
MARKERS = ("o", "s", "^", "D", "v", "P", "<", "p", ">", "h")
WIDTH = 9.0
PNG_DPI = 150
LONGEST = 44
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "font.size": 10,
    "axes.titlesize": 11,
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Drawing:
    """One figure as files and as words.

    Attributes:
        svg: A complete SVG document.
        png: The same as PNG.
        alt: What a reader who cannot see it should know, with the extreme values.
        caption: How to read it, and what was left out and why.
        suffix: What its file name has behind that of the table; of a figure on several tasks the
            whole name.
    """

    svg: str
    png: bytes
    alt: str
    caption: str
    suffix: str = ""

    def inline_svg(self, prefix: str) -> str:
        """The drawing for an HTML page: theme colours, and ids that no other figure has."""
        svg = self.svg[self.svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
        svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
        return svg.replace(INK, "currentColor").replace(PAPER, "none")


@dataclass(frozen=True, eq=False)
class Sketch:
    """A figure that is not saved yet; made and finished inside `drawing_style`.

    Attributes:
        figure: The figure.
        alt: As in `Drawing`.
        caption: As in `Drawing`.
        suffix: As in `Drawing`.
    """

    figure: Figure
    alt: str
    caption: str
    suffix: str

    def finished(self, salt: str) -> Drawing:
        """Save it; the same figure and salt give the same bytes."""
        with mpl.rc_context({"svg.hashsalt": f"{salt} {self.suffix}"}):
            svg, png = as_files(self.figure)
        return Drawing(svg, png, self.alt, self.caption, self.suffix)


@contextmanager
def drawing_style() -> Iterator[None]:
    """Set the look of figures and put the caller's settings back afterwards."""
    with style.context(["default", _SETTINGS]):
        yield


def as_files(figure: Figure) -> tuple[str, bytes]:
    """A figure as SVG and PNG, without the time and the versions that made it."""
    svg, png = io.StringIO(), io.BytesIO()
    with warnings.catch_warnings():
        # a sign that the font lacks is a box in the PNG; in the SVG, text is text
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        # `savefig` would draw each of them twice, and lay out everything anew
        figure.set_dpi(PNG_DPI)
        FigureCanvasAgg(figure).print_png(  # type: ignore[no-untyped-call]
            png, metadata={"Software": None}
        )
        figure.set_layout_engine("none")
        FigureCanvasSVG(figure).print_svg(  # type: ignore[no-untyped-call]
            svg, metadata={"Date": None, "Creator": None}
        )
    return _slim(svg.getvalue()), png.getvalue()


def short(names: Sequence[str], longest: int = LONGEST) -> list[str]:
    """Names that fit into a figure: the middle of long ones is left out, and all stay distinct."""
    shown: dict[str, str] = {}
    for name in dict.fromkeys(names):
        text, number = _cut(name, longest), 1
        while text in shown.values():
            number += 1
            text = f"{_cut(name, longest - 4)} ({number})"
        shown[name] = text
    return [shown[name] for name in names]


def file_name(*specs: str) -> str:
    """Part of a file name from the bare names of specs.

    Example:
        >>> file_name("digits", "resnet18[stem=small]")
        'digits-resnet18'
    """
    bare = "-".join(spec.split("[")[0] for spec in specs)
    return re.sub(r"[^a-z0-9]+", "-", bare.lower()).strip("-")


def numbered(names: Sequence[str]) -> list[str]:
    """The names, those that repeat with a number behind them.

    Example:
        >>> numbered(["a", "a", "b"])
        ['a', 'a-2', 'b']
    """
    found: list[str] = []
    for name in names:
        number = 1
        while (shown := name if number == 1 else f"{name}-{number}") in found:
            number += 1
        found.append(shown)
    return found


def rows_figure(rows: int, panels: int = 1, **subplots: Any) -> tuple[Figure, list[Axes]]:  # noqa: ANN401
    """A figure with one line a row, as high as its rows need; panels stand side by side."""
    figure = Figure(figsize=(WIDTH, 1.3 + row_height(rows) * rows), layout="constrained")
    axes = figure.subplots(1, panels, sharey=True, squeeze=False, **subplots)
    return figure, list(axes[0])


def row_height(rows: int) -> float:
    """Inches that a row takes: less where there are many."""
    return 0.34 if rows <= 12 else 0.27


def name_rows(panels: Sequence[Axes], names: Sequence[str]) -> None:
    """Names of the rows from the top down, left of the first panel."""
    panels[0].set_yticks(range(len(names)), names, fontsize=9)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    for axes in panels:
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)


def add_legend(figure: Figure, bold: Sequence[str] = (), *, beside: bool = False) -> None:
    """One legend for all panels outside of them, so that no label covers a point.

    Args:
        figure: The figure; becomes higher by what a legend below the panels needs.
        bold: The labels to set in bold.
        beside: Whether it stands in one column on the right.
    """
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    labels, handles = list(found), list(found.values())
    width, height = figure.get_size_inches()
    columns = min(5, len(labels), max(1, int(12.4 * width) // (max(map(len, labels)) + 8)))
    columns = 1 if beside else columns
    if not beside:
        figure.set_size_inches(width, height + 0.2 * -(-len(labels) // columns))
    place: Literal["outside right center", "outside lower center"]
    place = "outside right center" if beside else "outside lower center"
    legend = figure.legend(handles, labels, loc=place, frameon=False, fontsize=9, ncols=columns)
    for text in legend.get_texts():
        text.set_fontweight("bold" if text.get_text() in bold else "normal")


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction in words, `12.3 %`."""
    return f"{100 * fraction:.{digits}f} %"


def extremes(names: Sequence[str], values: Sequence[float], unit: str = "", digits: int = 1) -> str:
    """The least and the greatest value with their names, for text alternatives.

    Example:
        >>> extremes(["a", "b"], [1.0, 2.5], "s")
        'from 1.0 s (a) to 2.5 s (b)'
        >>> extremes(["a"], [1.0], "s")
        '1.0 s (a)'
    """
    numbers = np.asarray(values, dtype=float)
    low, high = int(np.nanargmin(numbers)), int(np.nanargmax(numbers))
    unit = f" {unit}" if unit else ""
    ends = [f"{numbers[i]:,.{digits}f}{unit} ({names[i]})" for i in (low, high)]
    return ends[0] if low == high else f"from {ends[0]} to {ends[1]}"


def listed(parts: Sequence[str], most: int = 12) -> str:
    """Parts in one line; of very many the first ones and how many more."""
    rest = len(parts) - most
    return ", ".join(parts[:most]) + (f" and {rest} more" if rest > 0 else "")


def _cut(name: str, longest: int) -> str:
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}\u2026{name[-half:]}"


def _slim(svg: str) -> str:
    """Leave out what no reader sees: comments, thousandths of a point, a font said each time."""
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("<svg ", "<svg font-family=\"'DejaVu Sans', sans-serif\" ", 1)
    svg = re.sub(r"<[a-z][^>]*>", _slim_tag, svg)
    return "\n".join(line.strip() for line in svg.splitlines() if line.strip()) + "\n"


def _slim_tag(found: re.Match[str]) -> str:
    tag = found[0]
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
    if tag.startswith("<text"):
        tag = tag.replace(" font-family: 'DejaVu Sans';", "")
    if not tag.startswith("<image"):
        tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
    return tag.replace("\n", " ") if tag.startswith("<path") else tag
