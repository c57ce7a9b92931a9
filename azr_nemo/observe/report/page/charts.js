// Draws plotly's figures in the page's colours, when they come into view, with the task types and runs that are ticked.

const CONFIG = { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

class Chart {
  constructor(spec) {
    this.plot = make("div", { class: "plot", role: "img" });
    this.title = make("h3");
    this.about = make("p");
    this.numbers = make("details", { toggle: () => this.fillNumbers() }, make("summary", {}, "Numbers"));
    this.figure = make("figure", { id: spec.id }, make("figcaption", {}, this.title, this.about), this.plot, this.numbers);
    this.seen = false;
    this.set(spec);
    Chart.all.set(this.plot, this);
    Chart.watcher.observe(this.plot);
  }

  set(spec) {
    this.spec = spec;
    this.title.textContent = spec.title;
    this.about.textContent = spec.about;
    this.plot.setAttribute("aria-label", `${spec.title}: ${spec.about}. The numbers are below.`);
    this.plot.classList.toggle("tall", Boolean(spec.layout.showlegend));
    if (this.seen) this.draw();
  }

  shown() {
    return this.spec.data.filter(({ meta }) => !Chart.hiddenTypes.has(meta.type) && !Chart.hiddenRuns.has(meta.run));
  }

  draw() {
    this.seen = true;
    const data = this.shown();
    this.figure.hidden = this.spec.data.length > 0 && data.length === 0;
    if (!this.figure.hidden) Plotly.react(this.plot, data, pageLayout(this.spec.layout), CONFIG);
    if (this.numbers.open) this.fillNumbers();
  }

  fillNumbers() {
    while (this.numbers.children.length > 1) this.numbers.lastChild.remove();
    if (!this.numbers.open) return;
    const rows = this.shown().filter((trace) => trace.showlegend !== false || this.spec.layout.showlegend === undefined).flatMap(traceRows);
    this.numbers.append(rows.length ? table(["line", "at", "value"], rows, [1, 2]) : make("p", {}, "Nothing is shown."));
  }

  static all = new Map();
  static hiddenTypes = new Set();
  static hiddenRuns = new Set();
  static watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const chart = Chart.all.get(target);
      if (isIntersecting && !chart.seen) chart.draw();
    }
  }, { rootMargin: "300px" });

  /** Draws again what has been drawn: for other colours or other ticks. */
  static redraw() {
    for (const chart of Chart.all.values()) if (chart.seen) chart.draw();
  }
}

function traceRows(trace) {
  if (trace.type === "heatmap") return trace.y.flatMap((label, row) => trace.x.map((at, column) => [label, at, percent(trace.z[row][column])]));
  const bars = trace.error_y;
  return trace.x.map((at, i) => {
    const value = trace.y[i];
    const reach = bars && value !== null && bars.array[i] !== null && bars.arrayminus[i] !== null;
    const ends = reach ? ` [${number(value - bars.arrayminus[i])}, ${number(value + bars.array[i])}]` : "";
    return [trace.name, typeof at === "number" ? number(at) : at, number(value) + ends];
  });
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function pageLayout(layout) {
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--dim"), automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--text"), family: "system-ui, sans-serif", size: 11 },
    margin: { l: 44, r: 8, t: 8, b: 36 },
    hovermode: "closest",
    hoverlabel: { namelength: -1 },
    legend: { orientation: "h", y: -0.22, font: { size: 10 } },
    showlegend: false,
    ...layout,
    xaxis: { ...axis, ...layout.xaxis },
    yaxis: { ...axis, ...layout.yaxis },
  };
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", Chart.redraw);
