// Creation of elements. Texts are never parsed as HTML, because they come from files.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Return a new HTML element with attributes and children, which are elements or texts. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Return a new SVG element with attributes and children. */
export function makeSvg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Return the parts of a long name, with marks between them where a line may end. */
export function splitName(name) {
  return name.split(/(?<=[._/-])/).flatMap((part, i) => (i ? [make("wbr"), part] : [part]));
}

/** Set the text of an element, unless it has this text already, so that a selection of it remains. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set the children of an element, unless they are the same already, so that the focus and the scrolling remain. */
export function setChildren(element, children) {
  const isSame = children.length === element.children.length && children.every((one, i) => one === element.children[i]);
  if (!isSame) element.replaceChildren(...children);
}

const COLORS = 8;
const DASHES = ["", "7 3", "2 2.5", "9 3 2 3", "4 2", "12 3 2 3 2 3"];

/** Return the attributes of the line of a run: a color, and dashes that tell it from others without the color. */
export function makeLineStyle(slot) {
  const dash = DASHES[(slot + Math.floor(slot / COLORS)) % DASHES.length];
  return { class: `run run-${slot % COLORS}`, "stroke-dasharray": dash || null };
}

/** Return a short piece of the line of a run, for legends. */
export function makeSwatch(slot) {
  const line = makeSvg("path", { d: "M0 5H26", ...makeLineStyle(slot) });
  return makeSvg("svg", { class: "swatch", viewBox: "0 0 26 10", "aria-hidden": "true" }, line);
}
