// What a row opens: its seeds, its classes, its curves, its settings, and how to make it again.

const SEED_HEADS = ["seed", "status", "forget %", "gap", "retain %", "test %", "gap", "unlearn s", "speed-up", "cell"];
const CLASS_HEADS = ["class", "forget %", "gap", "test %", "gap", "U-LIRA %"];
const NONE = "–";

/** The evidence of one row of a table as one element. */
function evidenceOf(data, table, row) {
  const { evidence } = row;
  const parts = [
    row.gate ? el("p", { class: "part gate" }, "It does not pass the gate: ", rich(row.gate)) : null,
    seedsPart(data, evidence),
    classesPart(data, table, row),
    rocPart(data, table, row),
    coursePart(evidence),
    exposedPart(data, evidence),
    settingsPart(data, evidence),
    machinesPart(data, evidence),
    reproducePart(data, evidence),
  ];
  return el("div", { class: "evidence", role: "group", "aria-label": `Evidence of ${row.method}` }, parts);
}

function part(name, title, ...children) {
  return el("section", { class: `part ${name}` }, el("h3", {}, title), children);
}

function scrolling(label, ...children) {
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, children);
}

function percent(value, digits = 1) {
  return value === null ? NONE : (100 * value).toFixed(digits);
}

function seconds(value) {
  if (value === null) return NONE;
  return value !== 0 && value < 0.001 ? "<0.001" : String(Number(value.toPrecision(3)));
}

function seedsPart(data, evidence) {
  const lines = evidence.seeds.map(([seed, status, key, reason, forget, gapForget, retain, test, gapTest, unlearn, speedup]) => [
    String(seed), reason === null ? status : `${status}: ${data.shared[reason]}`,
    percent(forget), percent(gapForget, 2), percent(retain), percent(test), percent(gapTest, 2),
    seconds(unlearn), speedup === null ? NONE : `${seconds(speedup)}×`, el("code", {}, key),
  ]);
  return part("seeds", "Each seed",
    scrolling("Each seed", plainTable("Each seed; gap: percentage points to the retrained model of that seed", SEED_HEADS, lines)),
    evidence.facts.map((place) => el("p", { class: "soft" }, `${data.shared[place]}.`)));
}

function classesPart(data, table, row) {
  const found = data.classes.find((one) => one.dataset === table.dataset && one.model === table.model);
  const of = found?.rows[`${row.recipe}\t${row.method}`];
  if (!of) return null;
  const cell = (value, n) => (Array.isArray(value)
    ? [cell(value[0], n), value[1] ? el("small", {}, value[1]) : null]
    : percent(value, n === 1 || n === 3 ? 2 : 1));
  const lines = of.map(([name, ...values]) => [name, ...values.map(cell)]);
  return part("classes", "Each class that was forgotten",
    scrolling("Each class", plainTable("One task for each class; small below the worst, its class", CLASS_HEADS, lines, "totals")));
}

function rocPart(data, table, row) {
  if (row.evidence.attack === undefined) return null;
  const references = table.rows.filter((other) => other !== row && other.kind === "reference"
    && other.recipe === row.recipe && other.evidence?.attack !== undefined);
  const series = [row, ...references].map((one) => {
    const { fpr, tpr } = data.attacks[one.evidence.attack];
    return { name: one.method, style: rocStyle(one, row), points: data.shared[fpr].map((rate, i) => [rate, tpr[i]]) };
  });
  const drawn = chart({
    title: "ROC of the attack (log axes)", diagonal: "coin", series,
    x: { label: "false positive rate", log: true }, y: { label: "true positive rate", log: true },
  });
  return drawn && part("roc", "What the attack can tell", voidNote(row.evidence), drawn);
}

/** Why figures of the attack do not count, above what is drawn of them. */
function voidNote(evidence) {
  return evidence.void ? el("p", { class: "warning" }, evidence.void) : null;
}

/** Reference curves look alike in every row that is opened. */
function rocStyle(one, row) {
  if (one === row) return 0;
  return one.method.startsWith("retrained") ? 1 : 2;
}

function coursePart(evidence) {
  if (!evidence.curves) return null;
  const draw = (title, label, which, axis) => chart({
    title, x: { label: "epoch", whole: true }, y: { label, ...axis },
    series: evidence.curves.filter((curve) => curve[which].length).map((curve) => ({
      name: `seed ${curve[0]}`, style: evidence.curves.indexOf(curve),
      points: curve[1].map((epoch, i) => [epoch, curve[which][i]]),
    })),
  });
  const charts = [
    draw("Forget accuracy while unlearning", "forget accuracy", 3, { min: 0, max: 1 }),
    draw("Loss while unlearning", "loss", 2, {}),
  ].filter(Boolean);
  return charts.length ? part("course", "The course of unlearning", el("div", { class: "charts" }, charts)) : null;
}

function exposedPart(data, evidence) {
  const exposed = evidence.attack === undefined ? [] : data.attacks[evidence.attack].exposed;
  if (!exposed.length) return null;
  return part("exposed", "Most exposed examples",
    voidNote(evidence),
    plainTable("How often the attack is right on them", ["example", "attack right %"],
      exposed.map(([id, share]) => [String(id), percent(share, 0)])));
}

function settingsPart(data, evidence) {
  const groups = Object.entries(data.shared[evidence.settings]);
  const lists = groups.map(([name, values]) => {
    const list = definitions(values);
    return name === "hyper-parameters"
      ? el("div", {}, el("h4", {}, name), list)
      : el("details", {}, el("summary", {}, name), list);
  });
  const tuning = evidence.tuning === undefined ? null : data.shared[evidence.tuning];
  const found = tuning
    ? el("details", {}, el("summary", {}, `found by tuning${tuning.trials ? `, ${tuning.trials} trials` : ""}`), definitions(tuning))
    : el("p", { class: "soft" }, "Not tuned: defaults, or set in the sweep.");
  return part("settings", "Settings", lists.slice(0, 1), found, lists.slice(1));
}

function machinesPart(data, evidence) {
  const machines = evidence.machines.map((place) => data.shared[place]).filter((one) => Object.keys(one).length);
  if (!machines.length) return null;
  return part("machines", "Hardware and software", machines.map((machine) => definitions(machine)));
}

function definitions(values) {
  return el("dl", { class: "values" }, Object.entries(values).map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, typeof value === "string" ? value : JSON.stringify(value)))));
}

function reproducePart(data, evidence) {
  const key = (evidence.seeds.find((seed) => seed[1] === "ok") ?? evidence.seeds[0])[2];
  const commands = [];
  if (evidence.sweep !== undefined) {
    const text = data.shared[evidence.sweep];
    commands.push(
      el("p", {}, "Save this as ", el("code", {}, words.sweep_file), ", then type ", el("code", {}, data.shared[evidence.command]), "."),
      el("div", { class: "code" }, copyButton("Copy the sweep file", text), scrolling("Sweep file", el("pre", {}, text))));
  } else if (evidence.no_sweep !== undefined) {
    commands.push(el("p", {}, data.shared[evidence.no_sweep]));
  }
  commands.push(el("p", {}, "A report on one of its models: ", el("code", {}, `unlearnbench report ${key} --results FOLDER`), ", with the folder of these records."));
  return part("reproduce", "Make it again", commands);
}

function copyButton(label, text) {
  const button = el("button", { type: "button", onclick: async () => {
    button.textContent = (await copied(text)) ? "Copied" : "Copying is not allowed here";
    setTimeout(() => { button.textContent = label; }, 2000);
  } }, label);
  return button;
}

/** Put a text on the clipboard; browsers that have no clipboard for local files copy a selection. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { class: "hush", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
