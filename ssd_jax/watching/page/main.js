// The page of `ssd-jax watch`: it asks the server every two seconds what has changed.

import { CurvesSection } from "./curves.js";
import { setText } from "./elements.js";
import { formatTime } from "./format.js";
import { PicturesSection, showDifferences } from "./pictures.js";
import { RunsTable } from "./runs_table.js";
import { findFreeSlot, mergePoints } from "./scales.js";

const PAUSE = 2000; // ms between two questions
const FIRST_TICKED = 4;
const FILTERED_FROM = 9; // runs, from which there is a filter
const STORED = "ssd-jax watch";

const find = (id) => document.getElementById(id);
const slots = new Map(); // place in the legend by the id of each ticked run
const points = new Map(); // by the id of a run: {version, train, val}
const table = new RunsTable(find("runs"), toggleRun);
const curves = new CurvesSection(find("charts"), find("more-charts"), find("more"));
const pictures = new PicturesSection(find("pictures"));
let overview = null;
let isAutomatic = true; // until the user ticks runs, the latest ones are ticked
let comparedKey = "";
let timer;

// ---- settings, which remain when the page is loaded again ----

function restoreSettings() {
  let stored = {};
  try {
    stored = JSON.parse(sessionStorage.getItem(STORED)) ?? {};
  } catch {
    // Storage may be turned off.
  }
  find("smoothing").value = stored.smoothing ?? 0;
  find("log").checked = stored.log ?? false;
  find("kind").value = stored.kind ?? "detections";
  if (stored.ticked) {
    isAutomatic = false;
    stored.ticked.forEach((id, slot) => slots.set(id, slot));
  }
}

function storeSettings() {
  const settings = { smoothing: readSmoothing(), log: find("log").checked, kind: find("kind").value };
  if (!isAutomatic) settings.ticked = [...slots].sort((a, b) => a[1] - b[1]).map(([id]) => id);
  try {
    sessionStorage.setItem(STORED, JSON.stringify(settings));
  } catch {
    // The settings are then lost when the page is loaded again.
  }
}

const readSmoothing = () => Number(find("smoothing").value);

// ---- ticked runs ----

function tick(id) {
  if (!slots.has(id)) slots.set(id, findFreeSlot(new Set(slots.values())));
}

function toggleRun(id, isTicked) {
  isAutomatic = false;
  if (isTicked) tick(id);
  else slots.delete(id);
  storeSettings();
  show();
  ask();
}

function tickLatest() {
  const latest = overview.runs.slice(0, FIRST_TICKED).map((run) => run.id);
  for (const id of [...slots.keys()]) if (!latest.includes(id)) slots.delete(id);
  latest.forEach(tick);
}

function listChosen() {
  const chosen = overview.runs.filter((run) => slots.has(run.id)).map((run) => ({ run, slot: slots.get(run.id) }));
  return chosen.sort((a, b) => a.slot - b.slot);
}

// ---- requests ----

async function fetchJson(url) {
  const answer = await fetch(url, { signal: AbortSignal.timeout(20000) });
  if (answer.status === 404) return null; // a run that has vanished
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.json();
}

async function fetchPoints(run) {
  const known = points.get(run.id) ?? { version: null, train: null, val: null };
  if (known.version === run.version) return;
  const query = ["train", "val"].map((group) => `${group}=${known[group]?.number ?? 0}.${known[group]?.fixed ?? 0}`);
  const message = await fetchJson(`api/runs/${run.id}/curves?${query.join("&")}`);
  if (message === null) return;
  points.set(run.id, {
    version: message.version,
    train: mergePoints(known.train, message.train),
    val: mergePoints(known.val, message.val),
  });
}

async function fetchDifferences(chosen) {
  const key = JSON.stringify(chosen.map(({ run, slot }) => [run.id, slot, run.config, run.steps]));
  if (key === comparedKey) return;
  const query = chosen.map(({ run }) => `run=${run.id}`).join("&");
  const differences = chosen.length > 1 ? await fetchJson(`api/differences?${query}`) : [];
  showDifferences(find("differences"), find("differences-text"), chosen, differences);
  comparedKey = key;
}

/** Ask the server now, and again after a pause. While the page is hidden, nothing is asked. */
async function ask() {
  clearTimeout(timer);
  timer = undefined;
  const asked = Symbol("question");
  ask.latest = asked;
  try {
    const answer = await fetchJson("api/runs");
    if (ask.latest !== asked) return;
    if (overview && overview.session !== answer.session) location.reload();
    overview = answer;
    if (isAutomatic) tickLatest();
    show();
    const chosen = listChosen();
    await Promise.all([...chosen.map(({ run }) => fetchPoints(run)), fetchDifferences(chosen)]);
    if (ask.latest !== asked) return;
    find("connection").hidden = true;
    show();
  } catch (error) {
    if (ask.latest !== asked) return;
    const since = overview ? ` What is shown is of ${formatTime(overview.now, overview.now)}.` : "";
    setText(find("connection"), `No answer from ssd-jax watch (${error.message}). Is it still running?${since}`);
    find("connection").hidden = false;
  }
  if (!document.hidden) timer = setTimeout(ask, PAUSE);
}

// ---- what is shown ----

function summarize(runs) {
  const count = (status) => runs.filter((run) => run.status === status).length;
  const present = ["running", "finished", "stopped", "broken"].filter(count);
  const parts = present.map((status) => `${count(status)} ${status}`);
  return `${runs.length} ${runs.length === 1 ? "run" : "runs"}: ${parts.join(", ")}.`;
}

function showEmpty() {
  const { exists, folder } = overview;
  setText(find("summary"), exists ? "There is no run in this folder." : "This folder does not exist any more.");
  setText(find("empty-text"), `The folder ${folder} and the folders in it were searched for run folders.`);
  setText(find("empty-command"), `ssd-jax train own_data --data.root IMAGES --workdir ${folder}/first`);
}

function show() {
  if (!overview) return;
  const { runs, now, folder, is_complete: isComplete } = overview;
  setText(find("folder"), `in ${folder}`);
  document.title = `${runs.filter((run) => run.status === "running").length} running \u2013 ${folder}`;
  find("content").hidden = !runs.length;
  find("empty").hidden = runs.length > 0;
  if (!runs.length) {
    showEmpty();
    return;
  }
  setText(find("summary"), summarize(runs) + (isComplete ? "" : " The folder is large; not all of it was searched."));
  find("filter-label").hidden = runs.length < FILTERED_FROM;
  table.update(runs, now, slots, find("filter").value);
  const chosen = listChosen();
  const drawn = chosen.flatMap((one) => (points.has(one.run.id) ? [{ ...one, data: points.get(one.run.id) }] : []));
  const smoothing = readSmoothing();
  setText(find("smoothing-value"), smoothing.toFixed(2).replace(/\.?0+$/, ""));
  curves.update(drawn, smoothing, find("log").checked);
  pictures.update(chosen, find("kind").value, now);
}

for (const id of ["smoothing", "log", "kind"]) {
  find(id).addEventListener("input", () => {
    storeSettings();
    show();
  });
}
find("filter").addEventListener("input", show);
find("choose-none").addEventListener("click", () => {
  isAutomatic = false;
  slots.clear();
  storeSettings();
  show();
  ask();
});
find("choose-latest").addEventListener("click", () => {
  isAutomatic = true;
  storeSettings();
  ask();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) ask();
});
restoreSettings();
ask();
