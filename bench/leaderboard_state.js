// The state of the page, which is kept in its address, and what of the tables it lets through.

const root = document.documentElement;
const text = (id) => document.getElementById(id).textContent;
const $ = (id) => document.getElementById(id);

const WORDS = ["find", "dataset", "model", "scenario", "recipe", "sort", "theme", "at"];
const LISTS = ["show", "hide", "open"]; // groups of columns beyond and below the first ones; rows

const FILTERS = [["dataset", "Dataset"], ["model", "Architecture"], ["scenario", "Scenario"], ["recipe", "Recipe"]];

const words = JSON.parse(text("words"));
let state = readState();
let data; // what Python wrote into the page
let DataTable;
let sections = [];

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
