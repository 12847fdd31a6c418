// A chart with one line for each run, a cursor, and a list of the values at the cursor.

import { make, makeLineStyle, makeSvg, makeSwatch, setText } from "./elements.js";
import { formatCount, formatTick, formatValue } from "./format.js";
import { findNearest, findRange, makeLogTicks, makeTicks, smooth } from "./scales.js";

const MARGIN = { left: 46, right: 10, top: 8, bottom: 24 };
const MOST_DOTS = 40;

/** A chart. Its element is a figure. */
export class Chart {
  /**
   * @param {string} title Name of the metric.
   * @param {{canSmooth: boolean, canLog: boolean, hasDots: boolean}} abilities Whether smoothing and the logarithmic
   *   scale apply, and whether the points of short lines are drawn as dots, too.
   */
  constructor(title, { canSmooth, canLog, hasDots }) {
    this.title = title;
    this.canSmooth = canSmooth;
    this.canLog = canLog;
    this.mostDots = hasDots ? MOST_DOTS : 1;
    this.series = [];
    this.cursor = null; // a step, or null
    this.position = make("span");
    this.svg = makeSvg("svg", { class: "chart", tabindex: "0", role: "img" });
    this.values = make("ul", { class: "values" });
    const caption = make("figcaption", {}, make("b", {}, title), this.position);
    this.element = make("figure", {}, caption, this.svg, this.values);
    this.svg.addEventListener("pointermove", (event) => this.moveTo(this.findStep(event)));
    this.svg.addEventListener("pointerdown", (event) => this.moveTo(this.findStep(event)));
    this.svg.addEventListener("pointerleave", () => this.moveTo(null));
    this.svg.addEventListener("blur", () => {
      this.values.removeAttribute("aria-live");
      this.moveTo(null);
    });
    this.svg.addEventListener("keydown", (event) => this.handleKey(event));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  /**
   * Show other data.
   * @param {{name: string, slot: number, steps: number[], values: (number|null)[], average: number}[]} series Lines.
   * @param {number} smoothing Weight of the previous values.
   * @param {boolean} isLog Whether the scale is logarithmic.
   */
  show(series, smoothing, isLog) {
    this.series = series.map((one) => ({ ...one, smooth: smooth(one.values, this.canSmooth ? smoothing : 0) }));
    this.isSmoothed = this.canSmooth && smoothing > 0;
    this.isLog = this.canLog && isLog;
    this.steps = [...new Set(series.flatMap((one) => one.steps.filter((_, i) => one.values[i] !== null)))];
    this.steps.sort((a, b) => a - b);
    const names = series.map((one) => one.name).join(", ");
    this.svg.setAttribute("aria-label", `${this.title} of ${names}. The arrow keys move the cursor.`);
    this.draw();
  }

  draw() {
    const [width, height] = [this.svg.clientWidth, this.svg.clientHeight];
    const all = this.series.flatMap((one) => (this.isSmoothed ? [...one.values, ...one.smooth] : one.values));
    const range = findRange(all, this.isLog);
    if (!width || !this.steps) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const right = width - MARGIN.right;
    const bottom = height - MARGIN.bottom;
    if (range === null) {
      const text = this.isLog && all.some((value) => value !== null) ? "no values above 0" : "no values yet";
      this.svg.replaceChildren(makeSvg("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, text));
      this.values.replaceChildren();
      return;
    }
    const lastStep = this.steps.at(-1) || 1;
    const warp = this.isLog ? Math.log : (value) => value;
    const [low, high] = range.map(warp);
    this.toX = (step) => MARGIN.left + ((right - MARGIN.left) * step) / lastStep;
    this.toY = (value) => bottom - ((bottom - MARGIN.top) * (warp(value) - low)) / (high - low);
    this.toStep = (x) => ((x - MARGIN.left) / (right - MARGIN.left)) * lastStep;
    const parts = [];
    for (const tick of this.isLog ? makeLogTicks(...range) : makeTicks(...range, Math.max(2, height / 45))) {
      const y = this.toY(tick);
      parts.push(makeSvg("path", { class: "grid", d: `M${MARGIN.left} ${y}H${right}` }));
      parts.push(makeSvg("text", { x: MARGIN.left - 6, y: y + 3.5, "text-anchor": "end" }, formatTick(tick)));
    }
    for (const tick of makeTicks(0, lastStep, Math.max(1, width / 90))) {
      const anchor = this.toX(tick) > right - 14 ? "end" : "middle";
      parts.push(makeSvg("text", { x: this.toX(tick), y: height - 7, "text-anchor": anchor }, formatTick(tick)));
    }
    for (const one of this.series) {
      const style = makeLineStyle(one.slot);
      if (this.isSmoothed) parts.push(this.makeLine(one.steps, one.values, { ...style, class: `${style.class} raw` }));
      parts.push(this.makeLine(one.steps, one.smooth, style));
      const present = one.values.filter((value) => value !== null).length;
      if (present <= this.mostDots) parts.push(...this.makeDots(one, (index) => one.smooth[index] !== null));
    }
    this.cursorLayer = makeSvg("g");
    this.svg.replaceChildren(...parts, this.cursorLayer);
    this.drawCursor();
  }

  canDraw(value) {
    return value !== null && (!this.isLog || value > 0);
  }

  makeLine(steps, values, style) {
    let path = "";
    let isDrawing = false;
    values.forEach((value, i) => {
      if (!this.canDraw(value)) return; // a metric that another entry has, which does not break the line
      path += `${isDrawing ? "L" : "M"}${this.toX(steps[i]).toFixed(1)} ${this.toY(value).toFixed(1)}`;
      isDrawing = true;
    });
    return makeSvg("path", { d: path, ...style });
  }

  makeDots(one, isWanted) {
    const indices = one.smooth.map((_, i) => i).filter((i) => isWanted(i) && this.canDraw(one.smooth[i]));
    return indices.map((i) =>
      makeSvg("circle", {
        class: makeLineStyle(one.slot).class,
        cx: this.toX(one.steps[i]).toFixed(1),
        cy: this.toY(one.smooth[i]).toFixed(1),
        r: 3,
      }),
    );
  }

  /** Show the values at the cursor or, without a cursor, the last ones. */
  drawCursor() {
    const rows = [];
    const marks = [];
    for (const one of this.series) {
      const present = one.steps.map((_, i) => i).filter((i) => one.values[i] !== null);
      if (!present.length) continue;
      const last = present.at(-1);
      const isPast = this.cursor !== null && this.cursor > one.steps[last]; // the run did not get there
      const index = this.cursor === null ? last : present[findNearest(present.map((i) => one.steps[i]), this.cursor)];
      if (this.cursor !== null && !isPast) marks.push(...this.makeDots(one, (i) => i === index));
      const smoothed = this.isSmoothed ? ` (${formatValue(one.smooth[index])})` : "";
      const value = isPast ? "\u2013" : `${formatValue(one.values[index])}${smoothed}`;
      const step = `step ${formatCount(one.steps[index])}${one.average > 1 ? `, mean of ${one.average} entries` : ""}`;
      const name = make("span", { class: "name" }, one.name);
      rows.push(make("li", {}, makeSwatch(one.slot), name, make("b", { title: step }, value)));
    }
    if (this.cursor !== null) {
      const bottom = this.svg.clientHeight - MARGIN.bottom;
      const d = `M${this.toX(this.cursor).toFixed(1)} ${MARGIN.top}V${bottom}`;
      marks.unshift(makeSvg("path", { class: "cursor", d }));
    }
    this.cursorLayer.replaceChildren(...marks);
    this.values.replaceChildren(...rows);
    setText(this.position, this.cursor === null ? "" : `step ${formatCount(this.cursor)}`);
  }

  findStep(event) {
    if (!this.toStep || !this.steps.length) return null;
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    return this.steps[findNearest(this.steps, this.toStep(x))];
  }

  moveTo(step) {
    if (step === this.cursor || !this.cursorLayer) return;
    this.cursor = step;
    this.drawCursor();
  }

  handleKey(event) {
    const last = (this.steps ?? []).length - 1;
    if (last < 0) return;
    const index = this.cursor === null ? last + 1 : findNearest(this.steps, this.cursor);
    const moves = {
      ArrowLeft: index - 1,
      ArrowRight: index + 1,
      PageUp: index - 10,
      PageDown: index + 10,
      Home: 0,
      End: last,
    };
    if (event.key === "Escape") this.moveTo(null);
    else if (event.key in moves) {
      event.preventDefault();
      this.values.setAttribute("aria-live", "polite");
      this.moveTo(this.steps[Math.max(0, Math.min(last, moves[event.key]))]);
    }
  }
}
