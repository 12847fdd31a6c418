// The charts of all metrics of the ticked runs.

import { Chart } from "./chart.js";
import { setChildren } from "./elements.js";

// Title, whether the values are of the training steps or of evaluations, and whether the chart is always in sight.
const METRICS = {
  loss: ["loss", "train", true],
  voc_map_area: ["mAP (VOC, area) on val", "val", true],
  coco_ap: ["COCO AP on val", "val", true],
  learning_rate: ["learning rate", "train", true],
  images_per_second: ["images per second", "train", true],
  gradient_norm: ["norm of the gradient", "train", true],
  loc_loss: ["loss of the boxes", "train", false],
  conf_loss: ["loss of the classes", "train", false],
  num_positives: ["matched default boxes per image", "train", false],
  waited_for_data: ["fraction of the time waiting for data", "train", false],
  voc_map_11point: ["mAP (VOC, 11-point) on val", "val", false],
  coco_ap50: ["COCO AP at IoU .50 on val", "val", false],
};

const isMain = (name) => METRICS[name]?.[2] ?? false;

/** Return the points of a metric of a run. results.csv repeats the training metrics, which are used without a log. */
function findPoints(data, name) {
  const groups = METRICS[name]?.[1] === "val" ? [data.val, data.train] : [data.train, data.val];
  return groups.find((group) => group.values[name]?.some((value) => value !== null));
}

/** The charts. */
export class CurvesSection {
  constructor(main, more, details) {
    this.main = main;
    this.more = more;
    this.details = details;
    this.charts = new Map();
    details.addEventListener("toggle", () => this.draw());
  }

  /**
   * Show the curves of runs.
   * @param {{run: object, slot: number, data: object}[]} chosen The ticked runs, with their points.
   * @param {number} smoothing Weight of the previous values.
   * @param {boolean} isLog Whether the scale is logarithmic.
   */
  update(chosen, smoothing, isLog) {
    this.last = [chosen, smoothing, isLog];
    const groups = chosen.flatMap(({ data }) => [data.train, data.val]);
    const found = new Set(groups.flatMap((group) => Object.keys(group.values)));
    const others = [...found].filter((name) => !(name in METRICS));
    this.names = [...Object.keys(METRICS).filter((name) => found.has(name)), ...others];
    for (const [target, isWanted] of [[this.main, isMain], [this.more, (name) => !isMain(name)]]) {
      setChildren(target, this.names.filter(isWanted).map((name) => this.findChart(name).element));
    }
    this.details.hidden = !this.more.children.length;
    this.draw();
  }

  findChart(name) {
    if (!this.charts.has(name)) {
      const [title, group] = METRICS[name] ?? [name, "train"];
      const isOfSteps = group === "train";
      const canSmooth = isOfSteps && name !== "learning_rate";
      this.charts.set(name, new Chart(title, { canSmooth, canLog: isOfSteps, hasDots: !isOfSteps }));
    }
    return this.charts.get(name);
  }

  draw() {
    if (!this.last) return;
    const [chosen, smoothing, isLog] = this.last;
    for (const name of this.names) {
      if (!isMain(name) && !this.details.open) continue;
      const series = chosen.flatMap(({ run, slot, data }) => {
        const points = findPoints(data, name);
        if (!points) return [];
        const { steps, values, entriesPerPoint } = points;
        return [{ name: run.name, slot, steps, values: values[name], average: entriesPerPoint }];
      });
      this.findChart(name).show(series, smoothing, isLog);
    }
  }
}
