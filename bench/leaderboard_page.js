// Where the page begins: what is packed in it is unpacked, and tables are made when they come near.

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
