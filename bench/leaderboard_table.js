// The section of one task: its table, which DataTables sorts, its notes and its figures.

/** References keep their places on top, and what is not known goes last, in either direction; equals stay. */
const compare = (sign) => (a, b) => {
  if (a.place !== b.place) return a.place - b.place;
  const [x, y] = [a.value, b.value];
  const known = (x === null) - (y === null);
  if (known || x === null) return known || a.row - b.row;
  return sign * (typeof x === "string" ? x.localeCompare(y) : x - y) || a.row - b.row;
};

class Section {
  constructor(element, table) {
    Object.assign(this, { element, table, body: element.querySelector(".body"), grid: null });
    this.columns = table.columns.map((place) => data.columns[place]);
  }

  /** Make the table and what stands below it; once. */
  render() {
    if (this.grid) return;
    const { table, body } = this;
    const frame = el("table", { class: "leaderboard" },
      el("caption", {}, `${table.scenario}, ${table.dataset}, ${table.model}: ${table.rows.length} rows`), head(this.columns));
    const notes = table.notes.map((note) => el("li", {}, rich(note)));
    const reasons = table.reasons.map(([cells, why]) => el("li", {}, rich(cells), el("span", { class: "soft" }, " — ", rich(why))));
    body.replaceChildren(
      el("div", { class: "wide", tabindex: "0", role: "region", "aria-labelledby": `head-${table.id}` }, frame),
      ...(notes.length ? [el("ul", { class: "notes" }, notes)] : []),
      ...(reasons.length ? [el("h3", {}, words.reasons), el("ul", { class: "reasons" }, reasons)] : []),
      ...table.figures.map(figure));
    this.grid = this.makeGrid(frame);
    body.style.minHeight = "";
    for (const row of table.rows) if (state.open.has(row.id)) this.open(row, true);
  }

  makeGrid(frame) {
    const { table, columns } = this;
    const strips = stripScale(table);
    const places = table.rows.map((row, i) => (row.kind === "reference" || row.kind === "noise floor" ? i : table.rows.length));
    const grid = new DataTable(frame, {
      data: table.rows.map((_, i) => i),
      columns: columns.map((column, c) => ({
        data: null,
        type: "value",
        visible: columnShown(column),
        cellType: c ? "td" : "th",
        className: [column.numeric ? "" : "word", starts(columns, c) ? "start" : ""].join(" ").trim(),
        createdCell: c ? undefined : (cell) => cell.setAttribute("scope", "row"),
        render: (i, kind) => {
          if (kind === "display") return this.cell(column, c, i, strips);
          if (kind === "filter") return ""; // DataTables would read it as HTML; `rowPasses` filters
          const { text, value } = table.cells[c];
          return kind === "sort" ? { place: places[i], row: i, value: (column.numeric ? value : text)[i] } : text[i];
        },
      })),
      paging: false, info: false, autoWidth: false,
      order: this.order(),
      layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
      language: { emptyTable: "no rows", zeroRecords: "no rows" },
      createdRow: (line, i) => {
        line.classList.add(table.rows[i].kind.replace(" ", "-"));
        line.dataset.row = table.rows[i].id;
      },
    });
    grid.search.fixed("rows", (_, i) => rowPasses(table.rows[i]));
    grid.draw();
    grid.on("order", () => this.sorted());
    return grid;
  }

  /** The order that the state asks for, as far as this table has the column. */
  order() {
    const [id, direction] = state.sort.split(":");
    const place = this.columns.findIndex((column) => column.id === id);
    return place < 0 ? [] : [[place, direction === "desc" ? "desc" : "asc"]];
  }

  /** A reader sorted this table; the others follow. */
  sorted() {
    if (Section.following) return;
    const [first] = this.grid.order();
    state.sort = first?.[1] ? `${this.columns[first[0]].id}:${first[1]}` : "";
    writeState();
    Section.following = true;
    for (const other of sections) if (other !== this && other.grid) other.grid.order(other.order()).draw();
    Section.following = false;
  }

  cell(column, c, i, strips) {
    const [cells, row] = [this.table.cells[c], this.table.rows[i]];
    if (c === 0) return this.name(row);
    const [spread, beside, mark] = ["spread", "beside", "mark"].map((part) => cells[part]?.[i]);
    const sign = mark ? el("abbr", { title: data.marks[mark] }, ` ${mark}`) : null;
    if (!column.numeric) return el("span", { class: /failed|not run/.test(cells.text[i]) ? "some" : "" }, cells.text[i], sign);
    const number = [cells.text[i], spread ? el("span", { class: "spread" }, ` ${spread}`) : null];
    const strip = cells.strip?.[i];
    return el("div", { class: "cell" },
      strip ? stripOf(strip, strips) : null,
      el("div", {},
        mark === "✗" ? el("s", {}, number) : number,
        sign,
        beside ? el("small", {}, beside) : null));
  }

  name(row) {
    if (!row.evidence) return el("span", { class: "name" }, row.method);
    return el("button", {
      type: "button", class: "name", "aria-expanded": "false", title: "Show the evidence",
      onclick: () => this.open(row, !state.open.has(row.id)),
    }, row.method);
  }

  open(row, wanted) {
    const line = this.grid.row(this.table.rows.indexOf(row));
    const button = line.node().querySelector("button.name");
    if (!button) return;
    if (wanted) line.child(evidenceOf(data, this.table, row), "child").show();
    else line.child.remove();
    button.setAttribute("aria-expanded", String(wanted));
    state.open[wanted ? "add" : "delete"](row.id);
    writeState();
  }

  /** Follow the state: columns, order, rows and what is open. */
  follow() {
    this.element.hidden = !this.matches();
    if (!this.grid) return;
    this.columns.forEach((column, c) => {
      const one = this.grid.column(c);
      if (one.visible() !== columnShown(column)) one.visible(columnShown(column), false);
    });
    Section.following = true;
    this.grid.order(this.order()).draw();
    Section.following = false;
    this.table.rows.forEach((row, i) => {
      const open = this.grid.row(i).child.isShown();
      if (row.evidence && open !== state.open.has(row.id)) this.open(row, !open);
    });
  }

  matches() {
    return tablePasses(this.table) && this.table.rows.some((row) => row.kind !== "noise floor" && rowPasses(row))
      && (!state.find || this.found() > 0);
  }

  found() {
    return this.table.rows.filter((row) => (row.kind === "method" || row.kind === "control") && rowPasses(row)).length;
  }
}

/** Whether a column is the first of a group, where a line is drawn. */
function starts(columns, c) {
  return Boolean(columns[c].group) && columns[c - 1]?.group !== columns[c].group;
}

/** Two rows of headings: groups, and the columns in them. */
function head(columns) {
  const [above, below] = [el("tr"), el("tr")];
  columns.forEach((column, c) => {
    if (!column.group) {
      above.append(el("th", { scope: "col", rowspan: 2, class: column.numeric ? "" : "word" }, column.head, sub(column)));
      return;
    }
    if (starts(columns, c)) {
      let span = 1;
      while (columns[c + span]?.group === column.group) span += 1;
      above.append(el("th", { scope: "colgroup", colspan: span, class: "group start", "data-dt-order": "disable" }, column.group));
    }
    below.append(el("th", { scope: "col", class: starts(columns, c) ? "start" : "" }, column.head || "value", sub(column)));
  });
  return el("thead", {}, above, below);
}

function sub(column) {
  return column.sub ? el("small", {}, column.sub) : null;
}

/** The range that all strips of a table share: at least from 45 to 60 %. */
function stripScale(table) {
  const all = table.cells.flatMap((cells) => cells.strip ?? []).filter(Boolean);
  const ends = all.flatMap(([acc, half, low, high]) => [acc - (half ?? 0), acc + (half ?? 0), low ?? acc, high ?? acc]);
  const [low, high] = [Math.min(45, ...ends), Math.max(60, ...ends)];
  return (value) => 2 + (76 * (value - low)) / (high - low);
}

/** U-LIRA as a dot with its interval on its null band; the same numbers stand beside it. */
function stripOf([acc, half, low, high], at) {
  return svg("svg", { class: "strip", viewBox: "0 0 80 20", "aria-hidden": "true" },
    low !== null && high !== null ? svg("rect", { x: at(low), width: at(high) - at(low), y: 2, height: 16, rx: 2 }) : null,
    svg("line", { class: "coin", x1: at(50), x2: at(50), y1: 2, y2: 18 }),
    half !== null ? svg("line", { class: "reach", x1: at(acc - half), x2: at(acc + half), y1: 10, y2: 10 }) : null,
    svg("circle", { class: high !== null && acc > high ? "outside" : "", cx: at(acc), cy: 10, r: 3.6 }));
}

function figure({ svg: drawing, alt, caption }) {
  const image = new DOMParser().parseFromString(drawing, "image/svg+xml").documentElement;
  return el("figure", {}, el("div", { role: "img", "aria-label": alt }, document.importNode(image, true)), el("figcaption", {}, caption));
}
