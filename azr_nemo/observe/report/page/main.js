// Puts the page together from its blocks and, while it is live, asks every few seconds which of them have changed.

const EVERY_MS = 3000;
const charts = new Map();
let overview, browser, explorer;

function section(id, title, about, ...children) {
  return make("section", { id, "aria-labelledby": `${id}-title` }, make("h2", { id: `${id}-title` }, title), about ? make("p", { class: "dim" }, about) : null, ...children);
}

function chartsOf(part) {
  for (const spec of part.charts) {
    if (charts.has(spec.id)) charts.get(spec.id).set(spec);
    else charts.set(spec.id, new Chart(spec));
  }
  return make("div", { class: "charts" }, part.charts.map((spec) => charts.get(spec.id).figure));
}

/** Everything that comes from the overview. Charts that are drawn already stay where they are and are given their new numbers. */
function build() {
  document.getElementById("made").textContent = `${LIVE ? "live, last change" : "made"} ${overview.made} by ${overview.by}`;
  const sections = overview.sections.map((part) => (part.id === "learned"
    ? section(part.id, part.title, part.about, verdict(), chartsOf(part), notes())
    : section(part.id, part.title, part.about, chartsOf(part))));
  if (!overview.sections.some((part) => part.id === "learned")) sections.unshift(section("learned", "Did it learn?", "", verdict(), notes()));
  const curves = [...sections, explorer.element];
  const rest = [browser.section, configuration()];
  pin();
  arrange(document.getElementById("curves"), curves);
  arrange(document.getElementById("rest"), rest);
  document.getElementById("nav").replaceChildren(...[...curves, ...rest].map((part) => make("a", { href: `#${part.id}` }, part.querySelector("h2").textContent)));
}

/** Held-out accuracy stays in sight beside every section of curves. */
function pin() {
  const place = document.getElementById("pinned");
  place.hidden = !overview.held_out;
  if (overview.held_out) place.replaceChildren(...chartsOf({ charts: [overview.held_out] }).children);
}

function arrange(place, parts) {
  const same = parts.length === place.children.length && parts.every((part, i) => part.id === place.children[i].id);
  if (same) parts.forEach((part, i) => renew(part, place.children[i]));
  else place.replaceChildren(...parts);
}

/** Puts a new section in the place of the old one, unless they are the same: what a reader has opened or is typing stays. */
function renew(part, old) {
  const same = old === part || (old.textContent === part.textContent && !part.querySelector("figure"));
  if (!same) old.replaceWith(part);
}

function verdict() {
  const share = (ends) => ends.map(percent).join(" → ") || "–";
  const several = overview.runs.length > 1;
  const measured = ({ step, value, low, high }) => `${percent(value)}${low === null || high === null ? "" : ` [${percent(low)}, ${percent(high)}]`} at step ${step}`;
  const rows = overview.runs.flatMap((run) => run.verdicts.map((row) => [
    ...(several ? [run.name] : []), row.of, row.held_out.map(measured).join(" → ") || "–", make("strong", {}, row.change), share(row.solved), share(row.new), row.lines.map((n) => number(n)).join(" → ") || "–",
  ]));
  const heads = [...(several ? ["run"] : []), "task type", "held-out accuracy, first → last", "change", "on its own tasks", "novelty", "length"];
  const runs = overview.runs.map((run) => make("p", {}, several ? swatch(run.colour) : null, ` ${run.name}: ${counted(run.step, "step")} in ${duration(run.seconds)}, ${run.outcome || "going on or ended without a word"}; ${counted(run.tasks, "task")}, ${counted(run.answers, "answer")} in the rollouts`));
  const rule = "“rose” and “fell” are said only where neither interval reaches the other accuracy. Own tasks, novelty and length: means of the first and of the last steps.";
  return make("div", {}, runs, make("div", { class: "scroll", id: "verdicts" }, table(heads, rows)), make("p", { class: "dim" }, rule));
}

/** What a run lacks or what was left out. */
function notes() {
  return overview.runs.flatMap((run) => run.notes.map((note) => make("p", { class: "note" }, overview.runs.length > 1 ? `${run.name}: ${note}` : note)));
}

function configuration() {
  const several = overview.runs.length > 1;
  const parts = overview.runs.map((run) => make("details", { open: !several }, make("summary", {}, `${run.name}: ${run.directory}`),
    make("h3", {}, "Versions"), Object.keys(run.versions).length ? table(["package", "version"], Object.entries(run.versions)) : make("p", {}, "not recorded"),
    make("h3", {}, "Settings"), make("pre", {}, run.config || "none yet")));
  if (several && overview.differences.length) {
    parts.unshift(make("h3", {}, "Settings that differ"), make("div", { class: "scroll" }, table(["setting", ...overview.runs.map((run) => run.name)], overview.differences)));
  }
  return section("settings", "Configuration and versions", "", parts);
}

/** Ticks for task types and runs, which are the legend, too. */
function legend() {
  const tick = (label, mark, hidden, key) => {
    const box = make("input", { type: "checkbox", checked: true, change: () => { if (box.checked) hidden.delete(key); else hidden.add(key); Chart.redraw(); } });
    return make("label", {}, box, mark, label);
  };
  const several = overview.runs.length > 1;
  const dashes = { deduction: "solid", abduction: "dashed", induction: "dotted" };
  const types = Object.entries(overview.types).map(([type, colour]) => {
    const mark = swatch(several ? "currentColor" : colour);
    if (several) mark.style.borderTopStyle = dashes[type];
    return tick(type, mark, Chart.hiddenTypes, type);
  });
  const runs = several ? overview.runs.map((run, place) => tick(run.name, swatch(run.colour), Chart.hiddenRuns, place)) : [];
  document.getElementById("shown").replaceChildren(...types, ...runs);
}

/** Any metric of the runs. */
class Explorer {
  constructor() {
    this.choice = make("select", { id: "metric", change: () => this.draw() });
    this.place = make("div", { class: "charts" });
    this.element = section("metrics", "Any metric", "docs/metrics.md says what each name means. Long series are means of neighbouring steps.", make("label", {}, "Metric ", this.choice), this.place);
  }

  async load() {
    this.runs = await Promise.all(overview.runs.map((_, place) => block(`metrics-${place}`)));
    const names = [...new Set(this.runs.flatMap((run) => Object.keys(run || {})))].sort();
    const chosen = this.choice.value || names.find((name) => name === "train/entropy") || names[0];
    this.choice.replaceChildren(...names.map((name) => make("option", { value: name, selected: name === chosen }, name)));
    this.draw();
  }

  draw() {
    const name = this.choice.value;
    const data = this.runs.flatMap((run, place) => (run && run[name] ? [{
      type: "scatter", mode: "lines+markers", name: overview.runs[place].name.replaceAll("<", "&lt;"), x: run[name][0], y: run[name][1], connectgaps: false,
      line: { color: overview.runs[place].colour }, marker: { size: 5 }, meta: { run: place, type: null },
    }] : []));
    const layout = { xaxis: { title: { text: "step" } }, yaxis: {}, showlegend: overview.runs.length > 1 };
    this.place.replaceChildren(...chartsOf({ charts: [{ id: "metrics-any", title: name, about: "", data, layout }] }).children);
  }
}

/** #task-RUN-ID opens a task. */
async function follow() {
  const [, run, id] = location.hash.match(/^#task-(\d+)-(\d+)$/) || [];
  if (id === undefined || !overview.runs[run]) return;
  if (Number(run) !== browser.run) await browser.show(Number(run));
  if (browser.opened === Number(id)) return;
  await browser.open(Number(id));
  document.getElementById("tasks").scrollIntoView();
}

async function poll(hashes) {
  const trouble = document.getElementById("trouble");
  try {
    const answer = await fetch("/blocks", { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    const now = await answer.json();
    const changed = Object.keys(now).filter((name) => now[name] !== hashes[name]);
    if (changed.includes("overview")) { overview = await block("overview"); build(); }
    if (changed.some((name) => name.startsWith("metrics-"))) await explorer.load();
    if (changed.includes(`tasks-${browser.run}`)) await browser.show(browser.run);
    if (browser.opened !== null && changed.includes(`answers-${browser.run}-${Math.floor(browser.opened / overview.portion)}`)) await browser.open(browser.opened, false);
    hashes = now;
    trouble.hidden = true;
  } catch (error) {
    trouble.textContent = `The page does not change any more: ${error.message}`;
    trouble.hidden = false;
  }
  setTimeout(poll, EVERY_MS, hashes);
}

async function start() {
  const hashes = LIVE ? await (await fetch("/blocks", { cache: "no-store" })).json() : null;
  overview = await block("overview");
  browser = new TaskBrowser(overview);
  browser.section = section("tasks", "Tasks", "", browser.element);
  explorer = new Explorer();
  legend();
  build();
  await new Promise((done) => setTimeout(done)); // the first screen is painted before the rest is read
  await browser.show(0);
  await explorer.load();
  window.addEventListener("hashchange", follow);
  await follow();
  document.body.dataset.ready = "yes";
  if (LIVE) setTimeout(poll, EVERY_MS, hashes);
}

start();
