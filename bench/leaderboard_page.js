// The page: its state, which is kept in the address, its controls, and its tables.

const root = document.documentElement;
const text = (id) => document.getElementById(id).textContent;
const $ = (id) => document.getElementById(id);

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(text(id)), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
}

async function tableLibrary() {
  const url = URL.createObjectURL(new Blob([await unpacked("datatables")], { type: "text/javascript" }));
  try {
    return (await import(url)).default;
  } finally {
    URL.revokeObjectURL(url);
  }
}

// ---- state -------------------------------------------------------------------------------------

const WORDS = ["find", "dataset", "model", "scenario", "recipe", "sort", "theme", "at"];
const LISTS = ["show", "hide", "open"]; // groups of columns beyond and below the first ones; rows

function readState() {
  const given = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries([
    ...WORDS.map((name) => [name, given.get(name) ?? ""]),
    ...LISTS.map((name) => [name, new Set((given.get(name) ?? "").split(",").filter(Boolean))]),
  ]);
}

function writeState() {
  const kept = new URLSearchParams();
  for (const name of WORDS) if (state[name]) kept.set(name, state[name]);
  for (const name of LISTS) if (state[name].size) kept.set(name, [...state[name]].join(","));
  history.replaceState(null, "", `#${kept}`);
}

// ---- what is shown -----------------------------------------------------------------------------

/** A spec passes a filter if it is the one chosen, or one of the name chosen. */
function passes(spec, wanted) {
  return !wanted || spec === wanted || (wanted.endsWith("[*]") && bareName(spec) === wanted.slice(0, -3));
}

function bareName(spec) {
  return spec.split("[")[0];
}

function tablePasses(table) {
  return FILTERS.slice(0, 3).every(([name]) => passes(table[name], state[name]));
}

/** References stay whatever is searched for; a recipe that was filtered out takes its own along. */
function rowPasses(row) {
  const wanted = state.find.trim().toLowerCase();
  const isMethod = row.kind === "method" || row.kind === "control";
  return passes(row.recipe, state.recipe) && (!isMethod || `${row.method} ${row.recipe}`.toLowerCase().includes(wanted));
}

/** What a column is switched with: those of a group that are not shown at first apart. */
function toggleOf(column) {
  const split = !column.primary && data.columns.some((one) => one.primary && one.group && one.group === column.group);
  return slug(column.group || column.head) + (split ? "-more" : "");
}

function slug(words) {
  return words.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
}

/** The names of rows, and other words beside them, are always shown. */
function isFixed(column) {
  return column.primary && !column.numeric;
}

function columnShown(column) {
  const toggle = toggleOf(column);
  return isFixed(column) || (column.primary ? !state.hide.has(toggle) : state.show.has(toggle));
}

// ---- tables ------------------------------------------------------------------------------------

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

// ---- controls ----------------------------------------------------------------------------------

const FILTERS = [["dataset", "Dataset"], ["model", "Architecture"], ["scenario", "Scenario"], ["recipe", "Recipe"]];

function makeControls() {
  const bar = $("bar");
  for (const [name, label] of FILTERS) {
    const specs = [...new Set(data.tables.flatMap((table) => (name === "recipe" ? table.rows.map((row) => row.recipe) : [table[name]])))];
    if (specs.length > 1) $("filters").append(el("label", {}, el("span", {}, label), " ", select(name, specs)));
  }
  const toggles = new Map();
  for (const column of data.columns.filter((one) => !isFixed(one))) {
    const found = toggles.get(toggleOf(column)) ?? { name: column.group || column.head, primary: column.primary, heads: [] };
    found.heads.push(column.head);
    toggles.set(toggleOf(column), found);
  }
  for (const [id, one] of toggles) if (id.endsWith("-more")) one.name += `: ${one.heads.join(", ")}`;
  const boxes = (primary) => [...toggles].filter(([, one]) => one.primary === primary).map(([id, one]) =>
    el("label", {}, el("input", { type: "checkbox", name: "column", value: id }), " ", one.name));
  const more = boxes(false);
  bar.querySelector(".panel").append(
    el("fieldset", {}, el("legend", {}, "Shown at first"), boxes(true)),
    ...(more.length ? [el("fieldset", {}, el("legend", {}, "More columns"), more),
      el("p", {}, el("button", { type: "button", onclick: () => switchAll(true) }, "All"), " ",
        el("button", { type: "button", onclick: () => switchAll(false) }, "Only the first"))] : []));

  bar.addEventListener("submit", (event) => event.preventDefault());
  bar.addEventListener("input", ({ target }) => {
    if (target.name === "column") switchColumn(target.value, target.checked);
    else if (target.name) state[target.name] = target.value;
    changed();
  });
  $("reset").addEventListener("click", () => {
    for (const name of WORDS) if (name !== "theme") state[name] = "";
    for (const name of LISTS) state[name].clear();
    changed();
  });
  $("copy").addEventListener("click", async () => {
    writeState();
    say((await copied(location.href)) ? "The link is copied." : "Copying is not allowed here; the address above holds the link.");
  });
  $("more").addEventListener("click", ({ currentTarget }) => {
    const open = bar.classList.toggle("open");
    currentTarget.setAttribute("aria-expanded", String(open));
  });
  const menu = $("columns");
  document.addEventListener("click", ({ target }) => { if (!menu.contains(target)) menu.open = false; });
  menu.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") { menu.open = false; menu.querySelector("summary").focus(); }
  });
  bar.hidden = false;

  function switchColumn(id, on) {
    const { primary } = toggles.get(id);
    state.hide[primary && !on ? "add" : "delete"](id);
    state.show[!primary && on ? "add" : "delete"](id);
  }

  function switchAll(on) {
    for (const id of toggles.keys()) switchColumn(id, on || toggles.get(id).primary);
    changed();
  }
}

/** A choice of specs; those that share a name can be chosen together. */
function select(name, specs) {
  const byName = Map.groupBy ? Map.groupBy(specs, bareName) : groupedBy(specs, bareName);
  const options = [...byName].flatMap(([bare, members]) => (members.length > 1 && byName.size > 1
    ? [el("option", { value: `${bare}[*]` }, `${bare}, all ${members.length}`)] : [])
    .concat(members.map((spec) => el("option", { value: spec }, spec))));
  return el("select", { name }, el("option", { value: "" }, "all"), options);
}

function groupedBy(values, key) {
  const found = new Map();
  for (const value of values) found.set(key(value), [...(found.get(key(value)) ?? []), value]);
  return found;
}

/** Show in the controls what the state is. */
function setControls() {
  const { elements } = $("bar");
  for (const name of [...FILTERS.map(([filter]) => filter), "find", "theme"]) {
    const control = elements.namedItem(name);
    if (!control) continue;
    control.value = state[name];
    if (control.tagName === "SELECT" && control.selectedIndex < 0) control.value = state[name] = "";
  }
  for (const box of $("bar").querySelectorAll("[name=column]")) {
    const column = data.columns.find((one) => !isFixed(one) && toggleOf(one) === box.value);
    box.checked = columnShown(column);
  }
}

function say(message) {
  $("count").textContent = message;
}

function changed() {
  setControls();
  follow();
  writeState();
}

/** Make the whole page what the state says. */
function follow() {
  root.dataset.theme = state.theme;
  for (const section of sections) section.follow();
  for (const line of document.querySelectorAll(".over > tbody > tr")) {
    line.hidden = !rowPasses({ ...line.dataset });
  }
  for (const item of document.querySelectorAll(".contents [data-task]")) {
    item.hidden = sections[item.dataset.task].element.hidden;
  }
  for (const section of document.querySelectorAll(".by-class")) {
    section.hidden = !passes(section.dataset.dataset, state.dataset) || !passes(section.dataset.model, state.model);
  }
  const shown = sections.filter((section) => !section.element.hidden);
  $("nothing").hidden = shown.length > 0;
  const rows = shown.reduce((sum, section) => sum + section.found(), 0);
  say(`${rows} ${rows === 1 ? "row" : "rows"} in ${shown.length} of ${sections.length} ${sections.length === 1 ? "task" : "tasks"}`);
}

function goTo(target) {
  const section = sections.find((one) => one.table.id === target);
  section?.render();
  section?.element.scrollIntoView();
}

// ---- start -------------------------------------------------------------------------------------

let data;
let DataTable;
let state = readState();
let sections = [];
const words = JSON.parse(text("words"));

async function start() {
  [data, DataTable] = await Promise.all([unpacked("data").then(JSON.parse), tableLibrary()]);
  DataTable.ext.errMode = "throw";
  DataTable.ext.type.order["value-asc"] = compare(1);
  DataTable.ext.type.order["value-desc"] = compare(-1);
  $("overall").append(...data.figures.map(figure));
  sections = [...document.querySelectorAll("section.task")].map((element) => new Section(element, data.tables[element.dataset.task]));
  if (!sections.length) return;
  makeControls();
  setControls();
  follow();
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      sections[target.dataset.task].render();
      near.unobserve(target);
    }
  }, { rootMargin: "600px" });
  for (const { element } of sections) near.observe(element);
  const renderAll = () => sections.forEach((section) => section.render());
  addEventListener("beforeprint", renderAll);
  matchMedia("print").addEventListener("change", ({ matches }) => matches && renderAll());
  addEventListener("hashchange", () => {
    state = readState();
    changed();
    if (state.at) goTo(state.at);
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='#']");
    if (!link) return;
    event.preventDefault(); // the address keeps the state, so links in the page only scroll
    if (link.dataset.at) {
      state.at = link.dataset.at;
      writeState();
      goTo(state.at);
    } else {
      const goal = $(link.getAttribute("href").slice(1));
      goal.scrollIntoView();
      goal.focus();
    }
  });
  const opened = sections.find((section) => section.table.rows.some((row) => state.open.has(row.id)));
  goTo(state.at || opened?.table.id);
}

try {
  await start();
  root.dataset.ready = "yes";
} catch (error) {
  const why = typeof DecompressionStream === "undefined" ? "this browser is too old for it" : error.message;
  document.querySelector("header.page").append(
    el("p", { class: "warning", role: "alert" }, `The tables cannot be shown: ${why}. They are also in leaderboard.md beside this page.`));
  root.dataset.ready = "no";
}
