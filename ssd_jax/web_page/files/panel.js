// The panel beside the picture: score slider, classes with counts, and the table of detections.

const LOWEST_SCORE = 0.05;
const MAX_ROWS = 200;

/**
 * Build the panel.
 *
 * @param {object} config Content of config.json.
 * @param {() => void} onChange Function that is called after the score or the classes were changed.
 */
export function createPanel(config, onChange) {
  const find = (id) => document.getElementById(id);
  const slider = find("score");
  slider.min = Math.max(config.score_threshold, LOWEST_SCORE).toFixed(2);
  slider.value = Math.max(0.5, config.score_threshold);

  const entries = config.class_names.map((name, index) => {
    const input = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
    const swatch = document.createElement("i");
    swatch.style.setProperty("--color", config.colors[index]);
    const title = document.createElement("bdi");
    title.textContent = name;
    const count = document.createElement("span");
    const label = document.createElement("label");
    label.append(input, swatch, title, count);
    const item = document.createElement("li");
    item.append(label);
    return { input, label, count, item };
  });
  find("class-list").append(...entries.map(({ item }) => item));

  function update() {
    find("score-value").textContent = slider.valueAsNumber.toFixed(2);
    onChange();
  }
  slider.addEventListener("input", update);
  for (const { input } of entries) input.addEventListener("change", onChange);
  for (const [id, checked] of [["all-classes", true], ["no-classes", false]]) {
    find(id).addEventListener("click", () => {
      for (const { input } of entries) input.checked = checked;
      onChange();
    });
  }
  find("score-value").textContent = slider.valueAsNumber.toFixed(2);

  return {
    /** Return the detections with a sufficient score and a chosen class, with names and colors, and show the counts. */
    choose(detections) {
      const good = detections.filter(({ score }) => score >= slider.valueAsNumber - 1e-9);
      const counts = entries.map(() => 0);
      for (const { class_index: index } of good) counts[index]++;
      entries.forEach(({ count, label }, index) => {
        count.textContent = counts[index];
        label.classList.toggle("none", counts[index] === 0);
      });
      return good
        .filter(({ class_index: index }) => entries[index].input.checked)
        .map((detection) => ({
          ...detection,
          name: config.class_names[detection.class_index],
          color: config.colors[detection.class_index],
        }));
    },

    /** Show the chosen detections in the table. */
    showRows(detections) {
      find("rows").replaceChildren(...detections.slice(0, MAX_ROWS).map(makeRow));
    },

    /** Show the time that a picture took. */
    showTime(milliseconds) {
      find("time").hidden = false;
      find("milliseconds").textContent = milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds);
    },
  };
}

function makeRow({ name, score, box }) {
  const row = document.createElement("tr");
  const title = document.createElement("th");
  title.scope = "row";
  title.textContent = name;
  const cells = [score.toFixed(2), box.map((value) => Math.round(value)).join(" ")].map((text) => {
    const cell = document.createElement("td");
    cell.textContent = text;
    return cell;
  });
  row.append(title, ...cells);
  return row;
}

/**
 * Return a sentence with the number of detections of each class, such as "3 detections: 2 cat, 1 dog".
 *
 * @param {{name: string}[]} detections Chosen detections.
 */
export function describeDetections(detections) {
  if (!detections.length) return "No detections";
  const counts = new Map();
  for (const { name } of detections) counts.set(name, (counts.get(name) ?? 0) + 1);
  const parts = [...counts].map(([name, count]) => `${count} ${name}`).join(", ");
  return `${detections.length} ${detections.length === 1 ? "detection" : "detections"}: ${parts}`;
}
