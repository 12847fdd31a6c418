// The latest pictures of the ticked runs, and the options in which their configs differ.

import { make, makeSwatch, setChildren, setText, splitName } from "./elements.js";
import { formatTime } from "./format.js";
import { makeFileUrl } from "./runs_table.js";

/** Show the latest picture of a kind of each ticked run. Elements whose picture is the same are kept. */
export class PicturesSection {
  constructor(target) {
    this.target = target;
    this.figures = new Map();
  }

  update(chosen, kind, now) {
    const figures = new Map();
    for (const { run, slot } of chosen) {
      const file = run.files.find((one) => one.kind === kind);
      const key = JSON.stringify([run.id, slot, file ?? null]);
      figures.set(key, this.figures.get(key) ?? this.makeFigure(run, slot, file, kind, now));
    }
    setChildren(this.target, [...figures.values()]);
    this.figures = figures;
  }

  makeFigure(run, slot, file, kind, now) {
    const caption = make("figcaption", {}, makeSwatch(slot), make("b", {}, run.name));
    if (!file) return make("figure", {}, caption, make("p", { class: "note" }, "There is no such picture yet."));
    caption.append(make("span", { class: "note" }, `${file.split}, ${formatTime(file.modified, now)}`));
    const url = makeFileUrl(run, file);
    const image = make("img", { src: url, alt: `${kind} of ${run.name} on ${file.split}`, loading: "lazy" });
    return make("figure", {}, caption, make("a", { href: url, target: "_blank", rel: "noopener" }, image));
  }
}

/** Show the table of differing options. */
export function showDifferences(table, text, chosen, differences) {
  if (chosen.length < 2) {
    setText(text, "Tick two or more runs to see the options in which they differ.");
    table.replaceChildren();
    return;
  }
  const known = chosen.filter(({ run }) => run.config).length;
  setText(
    text,
    known < 2
      ? "The configs of these runs cannot be read."
      : differences.length
        ? "These options differ. All others are the same."
        : "These runs have the same config.",
  );
  const head = chosen.map(({ run, slot }) =>
    make("th", { scope: "col" }, makeSwatch(slot), make("span", {}, run.name)));
  const rows = differences.map(({ option, values }) => {
    const cells = values.map((value) => make("td", {}, value ?? "\u2013"));
    return make("tr", {}, make("th", { scope: "row" }, ...splitName(option)), ...cells);
  });
  const titles = make("tr", {}, make("th", { scope: "col" }, "option"), ...head);
  table.replaceChildren(...(rows.length ? [make("thead", {}, titles), make("tbody", {}, ...rows)] : []));
}
