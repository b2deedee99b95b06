// The controls on top, and the page made what they say.

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
    section.hidden = !passes(section.dataset.dataset, state.dataset) || !passes(section.dataset.model, state.model) || Boolean(state.scenario);
  }
  const shown = sections.filter((section) => !section.element.hidden);
  for (const note of document.querySelectorAll(".of-all")) note.hidden = shown.length === sections.length;
  $("nothing").hidden = shown.length > 0;
  const rows = shown.reduce((sum, section) => sum + section.found(), 0);
  say(`${rows} ${rows === 1 ? "row" : "rows"} in ${shown.length} of ${sections.length} ${sections.length === 1 ? "task" : "tasks"}`);
}

function goTo(target) {
  const section = sections.find((one) => one.table.id === target);
  if (!section) return;
  section.render();
  const line = state.at ? null : section.element.querySelector("tr:has([aria-expanded=true])");
  (line ?? section.element).scrollIntoView();
  const heading = section.element.querySelector("h2");
  heading.tabIndex = -1; // so that the keyboard goes on from here
  heading.focus({ preventScroll: true });
}
