// Elements, and line charts as SVG with the numbers as a table beside them.

/** An element; children that are no nodes become text, which is never read as HTML. */
function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** A text in which backquotes stand around code. */
function rich(text) {
  return text.split("`").map((part, i) => (i % 2 ? el("code", {}, part) : part));
}

/** A table of texts; the first column heads its rows. */
function plainTable(caption, heads, lines, classes = "") {
  return el("table", { class: `plain ${classes}` },
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, lines.map((line) => el("tr", {}, line.map((cell, i) =>
      el(i ? "td" : "th", i ? {} : { scope: "row" }, cell))))));
}

const CHART = { width: 400, height: 260, left: 50, right: 12, top: 10, bottom: 40 };

/**
 * A line chart.
 * @param {{title: string, x: Axis, y: Axis, series: Series[], diagonal?: string}} about
 *   Axis: `label`; `log`, or perhaps `min`, `max` and `whole` (ticks at whole numbers alone).
 *   Series: `name`, `points` as [x, y], and `style`, the number of its colour and dashes.
 */
function chart({ title, x, y, series, diagonal }) {
  const points = series.flatMap((one) => drawable(one.points, x, y));
  if (!points.length) return null;
  const { width, height, left, right, top, bottom } = CHART;
  const across = scale(x, points.map((p) => p[0]), left, width - right);
  const up = scale(y, points.map((p) => p[1]), height - bottom, top);
  const words = `${title}. ${series.map((one) => summary(one, x, y)).join(" ")}`;
  const id = `chart-${(chart.made = (chart.made ?? 0) + 1)}`;
  const parts = [
    svg("title", { id: `${id}-title` }, title),
    svg("desc", { id: `${id}-desc` }, words),
    across.ticks.map((tick) => svg("g", { class: "tick" },
      svg("line", { x1: across(tick), x2: across(tick), y1: top, y2: height - bottom }),
      svg("text", { x: across(tick), y: height - bottom + 15, "text-anchor": "middle" }, shown(tick)))),
    up.ticks.map((tick) => svg("g", { class: "tick" },
      svg("line", { x1: left, x2: width - right, y1: up(tick), y2: up(tick) }),
      svg("text", { x: left - 6, y: up(tick) + 4, "text-anchor": "end" }, shown(tick)))),
    svg("text", { class: "axis", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, x.label),
    svg("text", { class: "axis", "text-anchor": "middle",
      transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)` }, y.label),
  ];
  if (diagonal) {
    const ends = [Math.max(across.low, up.low), Math.min(across.high, up.high)];
    parts.push(svg("line", { class: "diagonal", x1: across(ends[0]), y1: up(ends[0]), x2: across(ends[1]), y2: up(ends[1]) }));
  }
  for (const one of series) {
    const of = drawable(one.points, x, y);
    const path = of.map((p, i) => `${i ? "L" : "M"}${across(p[0]).toFixed(1)} ${up(p[1]).toFixed(1)}`).join("");
    parts.push(svg("path", { class: `curve style-${one.style % 6}`, d: path }));
    if (of.length < 13) {
      parts.push(of.map((p) => svg("circle", { class: `dot style-${one.style % 6}`, r: 2.6, cx: across(p[0]), cy: up(p[1]) })));
    }
  }
  return el("figure", { class: "chart" },
    el("figcaption", {}, title),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": `${id}-title ${id}-desc` }, ...parts.flat(2)),
    el("ul", { class: "key" },
      series.map((one) => el("li", {}, sample(`style-${one.style % 6}`), one.name)),
      diagonal ? el("li", {}, sample("diagonal"), diagonal) : null),
    numbers(x, y, series));
}

function sample(style) {
  return svg("svg", { class: "sample", viewBox: "0 0 24 8", "aria-hidden": "true" },
    svg("line", { class: `curve ${style}`, x1: 1, x2: 23, y1: 4, y2: 4 }));
}

/** The numbers of a chart as a table, made when it is asked for. */
function numbers(x, y, series) {
  const box = el("details", { class: "numbers-of" }, el("summary", {}, "numbers"));
  box.addEventListener("toggle", () => {
    if (box.children.length > 1) return;
    const lines = series.flatMap((one) => one.points.map((p) => [one.name, String(p[0]), String(p[1])]));
    box.append(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Numbers of the chart" },
      plainTable("Numbers of the chart", ["curve", x.label, y.label], lines)));
  });
  return box;
}

function summary(one, x, y) {
  const [first, last] = [one.points[0], one.points.at(-1)];
  return `${one.name}: ${y.label} ${first[1]} at ${x.label} ${first[0]}, ${last[1]} at ${last[0]}.`;
}

/** The points that a chart can show: zero has no place on a log axis. */
function drawable(points, x, y) {
  return points.filter(([a, b]) => a !== null && b !== null && !(x.log && a <= 0) && !(y.log && b <= 0));
}

function scale(axis, values, from, to) {
  let low = axis.min ?? Math.min(...values);
  let high = axis.max ?? Math.max(...values);
  if (axis.log) {
    low = 10 ** Math.floor(Math.log10(low) + 1e-9);
    high = 10 ** Math.ceil(Math.log10(high) - 1e-9);
    if (low === high) low /= 10;
  } else if (low === high) {
    [low, high] = [low - 0.5, high + 0.5];
  }
  const step = axis.whole ? Math.ceil(niceStep(high - low)) : niceStep(high - low);
  if (!axis.log && axis.min === undefined) low = Math.floor(low / step) * step;
  if (!axis.log && axis.max === undefined) high = Math.ceil(high / step) * step;
  const at = axis.log ? Math.log : (value) => value;
  const place = (value) => from + ((at(value) - at(low)) / (at(high) - at(low))) * (to - from);
  const ticks = [];
  if (axis.log) for (let tick = low; tick <= high * 1.001; tick *= 10) ticks.push(tick);
  else for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i += 1) ticks.push(i * step);
  return Object.assign(place, { low, high, ticks });
}

function niceStep(range) {
  const rough = range / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((times) => times * power).find((step) => step >= rough * 0.999);
}

function shown(value) {
  return String(Number(value.toPrecision(6)));
}
