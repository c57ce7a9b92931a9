// The task browser: a filtered, sorted list in pages, and one opened task with its lineage and the answers to it.

const PAGE = 50;
const STATES = {
  all: ["all tasks", () => true],
  never: ["never solved", (task) => task.attempts > 0 && task.solved === 0],
  sometimes: ["solved sometimes", (task) => task.solved > 0 && task.solved < task.attempts],
  always: ["always solved", (task) => task.attempts > 0 && task.solved === task.attempts],
  untried: ["not tried yet", (task) => task.attempts === 0],
};
const COLUMNS = [
  ["task", (task) => task.id], ["type", (task) => task.type], ["step", (task) => task.step], ["lines", (task) => task.lines],
  ["right", (task) => (task.attempts ? task.solved / task.attempts : -1)], ["program", (task) => task.program],
];

class TaskBrowser {
  constructor(overview) {
    this.overview = overview;
    this.run = 0;
    this.tasks = [];
    this.known = new Map();
    this.used = new Map();
    this.texts = new Map();
    this.sort = { column: 0, down: true };
    this.page = 0;
    this.opened = null;
    const later = () => { clearTimeout(this.timer); this.timer = setTimeout(() => this.filter(), 120); };
    const now = () => this.filter();
    this.search = make("input", { type: "search", id: "search", input: later, placeholder: "words in program, inputs, outputs, message", autocomplete: "off" });
    this.type = select("type", [["", "all types"], ...Object.keys(overview.types).map((type) => [type, type])], now);
    this.state = select("state", Object.entries(STATES).map(([key, [label]]) => [key, label]), now);
    this.origin = select("origin", [["", "seeds and proposals"], ["seed", "seeds"], ["proposed", "proposals"]], now);
    this.runs = select("run", overview.runs.map((run, place) => [String(place), run.name]), () => this.show(Number(this.runs.value)));
    this.status = make("p", { role: "status", id: "count" });
    this.body = make("tbody");
    this.headings = COLUMNS.map(([label], column) => make("th", { scope: "col" }, make("button", { type: "button", click: () => this.order(column) }, label)));
    this.back = make("button", { type: "button", click: () => this.turn(-1) }, "Previous");
    this.on = make("button", { type: "button", click: () => this.turn(1) }, "Next");
    this.place = make("span");
    this.detail = make("div", { id: "task", tabindex: "-1", role: "region", "aria-label": "The opened task" }, make("p", { class: "dim" }, "Open a task to see its program, lineage and answers."));
    const list = make("div", { class: "list" },
      make("table", {}, make("caption", { class: "dim" }, "Right: share of the answers so far that were right."), make("thead", {}, make("tr", {}, this.headings)), this.body),
      make("div", { class: "pages" }, this.back, this.place, this.on));
    this.element = make("div", {},
      make("form", { class: "filters", role: "search", submit: (event) => event.preventDefault() },
        make("label", {}, "Search ", this.search), overview.runs.length > 1 ? make("label", {}, "Run ", this.runs) : null,
        make("label", {}, "Type ", this.type), make("label", {}, "Solved ", this.state), make("label", {}, "From ", this.origin)),
      this.status, make("div", { class: "browser" }, list, this.detail));
    this.body.addEventListener("keydown", (event) => this.walk(event));
  }

  /** Shows the tasks of a run; the filters stay. */
  async show(run) {
    this.run = run;
    this.runs.value = String(run);
    this.tasks = (await block(`tasks-${run}`)) || [];
    this.known = new Map(this.tasks.map((task) => [task.id, task]));
    this.texts = new Map();
    this.used = new Map();
    for (const task of this.tasks) {
      for (const reference of task.references) {
        if (!this.used.has(reference)) this.used.set(reference, []);
        this.used.get(reference).push(task.id);
      }
    }
    this.filter(false);
  }

  text(task) {
    if (!this.texts.has(task)) this.texts.set(task, [`#${task.id}`, task.program, task.message, ...task.pairs.flat()].join("\n").toLowerCase());
    return this.texts.get(task);
  }

  filter(fromStart = true) {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [, solved] = STATES[this.state.value];
    this.found = this.tasks.filter((task) =>
      (!this.type.value || task.type === this.type.value) && (!this.origin.value || task.seed === (this.origin.value === "seed")) &&
      solved(task) && words.every((word) => this.text(task).includes(word)));
    this.status.textContent = `${this.found.length.toLocaleString("en")} of ${counted(this.tasks.length, "task")}`;
    if (fromStart) this.page = 0;
    this.arrange();
  }

  order(column) {
    this.sort = { column, down: this.sort.column === column ? !this.sort.down : false };
    this.page = 0;
    this.arrange();
  }

  arrange() {
    const { column, down } = this.sort;
    const key = COLUMNS[column][1];
    const way = down ? -1 : 1;
    this.found.sort((a, b) => { const [x, y] = [key(a), key(b)]; return x < y ? -way : x > y ? way : b.id - a.id; });
    this.headings.forEach((heading, i) => heading.setAttribute("aria-sort", i !== column ? "none" : down ? "descending" : "ascending"));
    this.list();
  }

  turn(by) {
    this.page += by;
    this.list();
  }

  list() {
    const pages = Math.max(1, Math.ceil(this.found.length / PAGE));
    this.page = Math.min(Math.max(this.page, 0), pages - 1);
    this.place.textContent = `page ${this.page + 1} of ${pages}`;
    this.back.disabled = this.page === 0;
    this.on.disabled = this.page === pages - 1;
    this.body.replaceChildren(...this.found.slice(this.page * PAGE, (this.page + 1) * PAGE).map((task) => this.row(task)));
  }

  row(task) {
    const open = make("button", { type: "button", class: "open", click: () => { location.hash = `task-${this.run}-${task.id}`; this.open(task.id); } }, `#${task.id}`);
    const right = task.attempts ? `${task.solved}/${task.attempts}` : "–";
    return make("tr", { "data-task": task.id, "aria-current": task.id === this.opened ? "true" : null },
      [open, task.type, task.seed ? "seed" : String(task.step), String(task.lines), right, task.program.slice(0, 120).replace(/\s+/g, " ")].map((cell) => make("td", {}, cell)));
  }

  /** Arrow keys walk through the list. */
  walk(event) {
    const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = [...this.body.querySelectorAll("button.open")];
    const next = way && buttons[buttons.indexOf(document.activeElement) + way];
    if (next) { event.preventDefault(); next.focus(); }
  }

  async open(id, focus = true) {
    const task = this.known.get(id);
    if (!task) return;
    this.opened = id;
    for (const row of this.body.children) {
      if (Number(row.dataset.task) === id) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
    const portion = await block(`answers-${this.run}-${Math.floor(id / this.overview.portion)}`);
    if (this.opened !== id) return; // another one was opened meanwhile
    this.detail.replaceChildren(...this.details(task, (portion || {})[id]));
    this.detail.scrollTop = 0;
    if (focus) this.detail.focus({ preventScroll: true });
  }

  details(task, more) {
    const where = task.seed ? "a seed" : `proposed at step ${task.step}`;
    const parts = [
      make("h3", {}, `#${task.id} · ${task.type}`),
      make("p", { class: "dim" }, `${where} · ${counted(task.lines, "line")} · ${task.solved} of ${counted(task.attempts, "answer")} right`),
      make("pre", { class: "program" }, task.program),
      make("h3", {}, "Inputs and outputs"),
      table(["input", "output"], task.pairs.map(([input, output]) => [make("code", {}, input), make("code", {}, output)])),
      task.more ? make("p", { class: "dim" }, `${counted(task.more, "more pair")} left out.`) : null,
    ];
    if (task.message) parts.push(make("h3", {}, "Message"), make("pre", {}, task.message));
    parts.push(make("h3", {}, "Lineage"), this.links("The proposer saw ", task.references, "no references"), this.links("Shown to the proposer of ", this.used.get(task.id) || [], "no other task"));
    if (more && more.thought) parts.push(make("details", {}, make("summary", {}, "The proposer's reasoning"), make("pre", {}, more.thought)));
    if (more && more.proposal) parts.push(make("details", {}, make("summary", {}, `The proposal · ${judged(more.proposal)}`), make("pre", {}, more.proposal.text)));
    return [...parts, ...this.answers(more)].filter(Boolean);
  }

  links(text, ids, none) {
    if (!ids.length) return make("p", {}, text, none, ".");
    const shown = ids.slice(0, 50);
    const link = (id) => (this.known.has(id) ? make("a", { href: `#task-${this.run}-${id}` }, `#${id}`) : make("span", { class: "dim" }, `#${id} (not in the buffer any more)`));
    return make("p", {}, text, shown.flatMap((id, i) => (i ? [", ", link(id)] : [link(id)])), ids.length > shown.length ? ` and ${ids.length - shown.length} more.` : ".");
  }

  answers(more) {
    if (!more || !more.answers.length) return [make("h3", {}, "Answers"), make("p", { class: "dim" }, "The rollouts hold no answer to this task.")];
    const counts = Object.entries(more.outcomes).map(([outcome, count]) => `${outcome.replaceAll("_", " ")} ${count}`).join(", ");
    const left = more.left_out ? ` The newest ${more.answers.length} are shown, ${more.left_out.toLocaleString("en")} are left out.` : "";
    return [make("h3", {}, "Answers"), make("p", { class: "dim" }, `${counts}.${left}`),
      ...more.answers.map((answer, i) => make("details", { class: "answer", open: i === 0 }, make("summary", {}, judged(answer)), make("pre", {}, answer.text)))];
  }
}

function judged(answer) {
  const facts = [`${answer.phase}, step ${answer.step}`, answer.outcome.replaceAll("_", " "), `reward ${number(answer.reward)}`];
  if (answer.advantage !== null) facts.push(`advantage ${number(answer.advantage)}`);
  if (answer.tokens !== null) facts.push(counted(answer.tokens, "token"));
  return facts.join(" · ");
}

function select(id, options, changed) {
  return make("select", { id, change: changed }, options.map(([value, label]) => make("option", { value }, label)));
}
