// The table of runs, in which runs are ticked.

import { make, makeSwatch, setChildren, setText, splitName } from "./elements.js";
import { formatCount, formatDuration, formatMetric, formatTime, formatValue } from "./format.js";

const STATUS = {
  running: ["\u25b6", "A process is training in this folder."],
  finished: ["\u2713", "There is a checkpoint of the last step."],
  stopped: ["\u25a0", "No process trains in this folder. The same train command resumes the run."],
  broken: ["!", "config.json cannot be read."],
};

/** Return the address of a file of a run. */
export function makeFileUrl(run, file) {
  return `runs/${encodeURIComponent(run.id)}/${encodeURIComponent(file.name)}?v=${file.modified}`;
}

function describeStatus(run, now) {
  const [, text] = STATUS[run.status];
  const age = run.updated === null ? "" : ` The last entry of the log is ${formatDuration(now - run.updated)} old.`;
  return text + age;
}

function describeBest(run) {
  const measured = run.measured?.voc_map_area ?? null;
  const test = measured === null ? "" : `${run.measured.split}: ${formatMetric(measured)}`;
  return [run.best_step === null ? "" : `step ${formatCount(run.best_step)}`, test].filter(Boolean).join(", ");
}

function describeLength(run) {
  if (run.steps !== null) return `${formatCount(run.step ?? 0)} / ${formatCount(run.steps)}`;
  return run.minutes === null ? formatCount(run.step) : `${formatCount(run.step ?? 0)}, for ${run.minutes} min`;
}

// Each column: its label on a narrow screen, its text, and what stands below it in small type.
const COLUMNS = [
  ["step", describeLength, null],
  ["time left", (run) => formatDuration(run.seconds_left), null],
  ["loss", (run) => formatValue(run.loss), null],
  ["best mAP", (run) => formatMetric(run.best_map), describeBest],
  ["last mAP", (run) => formatMetric(run.last_map), null],
  ["learning rate", (run) => formatValue(run.learning_rate), null],
  ["images/s", (run) => formatValue(run.images_per_second), null],
  ["started", (run, now) => formatTime(run.started, now), null],
  ["trained for", (run) => formatDuration(run.training_seconds), null],
];

/** A row of the table, which keeps its elements while its texts change. */
class Row {
  constructor(run, onToggle) {
    this.box = make("input", { type: "checkbox" });
    this.box.addEventListener("change", () => onToggle(run.id, this.box.checked));
    this.swatch = make("span", { class: "key" });
    this.name = make("span", { class: "name" }, ...splitName(run.name));
    this.config = make("small");
    this.problem = make("small", { class: "problem" });
    const label = make("label", {}, this.box, this.swatch, this.name);
    this.status = make("span");
    this.status.className = "status";
    this.bar = make("i");
    this.cells = COLUMNS.map(([title]) => {
      const [value, note] = [make("span"), make("small")];
      return { value, note, cell: make("td", { role: "cell", "data-label": title }, value, note) };
    });
    this.cells[0].cell.append(make("span", { class: "progress", "aria-hidden": "true" }, this.bar));
    this.pages = make("td", { role: "cell", "data-label": "report" });
    // The roles remain on narrow screens, where the style makes a row a block.
    this.element = make("tr", { role: "row" },
      make("th", { scope: "row", role: "rowheader" }, label, this.config, this.problem),
      make("td", { role: "cell", "data-label": "status" }, this.status),
      ...this.cells.map(({ cell }) => cell), this.pages);
  }

  update(run, now, slot) {
    this.box.checked = slot !== undefined;
    if (this.slot !== slot) {
      this.slot = slot;
      this.swatch.replaceChildren(...(slot === undefined ? [] : [makeSwatch(slot)]));
    }
    setText(this.config, run.config === run.name ? "" : run.config);
    setText(this.problem, run.problem);
    setText(this.status, `${STATUS[run.status][0]} ${run.status}`);
    this.status.className = `status ${run.status}`;
    this.status.title = describeStatus(run, now);
    COLUMNS.forEach(([, format, describe], i) => {
      setText(this.cells[i].value, format(run, now));
      setText(this.cells[i].note, describe === null ? "" : describe(run));
    });
    const share = run.steps ? Math.min(1, (run.step ?? 0) / run.steps) : 0;
    this.bar.style.width = `${100 * share}%`;
    this.bar.parentElement.hidden = !run.steps;
    this.updatePages(run);
  }

  updatePages(run) {
    const pages = run.files.filter((file) => file.kind === "report");
    const key = JSON.stringify(pages);
    if (this.pagesKey === key) return;
    this.pagesKey = key;
    const links = pages.map((file) => {
      const split = file.split || run.measured?.split || "page";
      return make("a", { href: makeFileUrl(run, file), target: "_blank", rel: "noopener" }, split);
    });
    const parts = links.flatMap((link, i) => (i ? [", ", link] : [link]));
    this.pages.replaceChildren(...(parts.length ? parts : ["\u2013"]));
  }
}

/** The body of the table. */
export class RunsTable {
  constructor(body, onToggle) {
    this.body = body;
    this.onToggle = onToggle;
    this.rows = new Map();
  }

  /**
   * Show the runs in their order.
   * @param {object[]} runs States of the runs.
   * @param {number} now Time of the server, in seconds.
   * @param {Map<string, number>} slots Place in the legend of each ticked run.
   * @param {string} filter Text that the names of the shown runs contain.
   */
  update(runs, now, slots, filter) {
    const rows = new Map(runs.map((run) => [run.id, this.rows.get(run.id) ?? new Row(run, this.onToggle)]));
    for (const run of runs) {
      const row = rows.get(run.id);
      row.update(run, now, slots.get(run.id));
      row.element.hidden = !`${run.name} ${run.config}`.toLowerCase().includes(filter.toLowerCase());
    }
    this.rows = rows;
    setChildren(this.body, runs.map((run) => rows.get(run.id).element));
  }
}
