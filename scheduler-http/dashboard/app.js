// Which page is shown, and when it is asked for again.

import { useKey } from "./api.js";
import { el, flat, link } from "./dom.js";
import { pipeline } from "./pipeline.js";
import { task } from "./task.js";
import { applications, pipelines } from "./lists.js";

const VIEWS = [applications, pipelines, pipeline, task];
const PAUSE = 2_000;

const at = (id) => document.getElementById(id);

/** The page that is shown; another one makes whatever was asked for it nothing. */
let page = null;

function open() {
  clearTimeout(page?.timer);
  const parts = named(location.hash);
  const mine = { shown: null, turn: 0, moves: false, refused: null };
  mine.view = VIEWS[parts.length]({ changed: () => refresh(mine), act: (action) => act(mine, action) }, ...parts);
  page = mine;
  const names = ["Workload Scheduler", ...parts];
  document.title = names.toReversed().join(" · ");
  at("where").replaceChildren(...names.map((name, depth) => (depth < parts.length ? link(parts.slice(0, depth), name) : el("span", {}, name))));
  for (const part of ["summary", "tools", "shown"]) at(part).replaceChildren();
  tell(null);
  refresh(mine);
}

/** What a hash names: nothing, an application, a pipeline or a task. */
function named(hash) {
  try {
    return hash.replace(/^#\/?/, "").split("/").filter(Boolean).slice(0, VIEWS.length - 1).map(decodeURIComponent);
  } catch {
    // Not an address that this page made.
    return [];
  }
}

/** Asks and shows. Only the newest question of the page that is shown counts. */
async function refresh(mine) {
  clearTimeout(mine.timer);
  const turn = ++mine.turn;
  let problem = null;
  try {
    const data = await mine.view.load();
    if (page !== mine || turn !== mine.turn) return;
    show(mine, data);
  } catch (error) {
    problem = error;
  }
  if (page !== mine || turn !== mine.turn) return;
  tell(problem ?? mine.refused);
  mine.timer = setTimeout(() => whenSeen(() => page === mine && refresh(mine)), PAUSE);
}

function show(mine, data) {
  const text = JSON.stringify(data);
  if (mine.shown === null) at("tools").replaceChildren(...flat(mine.view.tools?.(data)));
  const moves = text !== mine.shown;
  // What does not change is left alone, with what is selected in it; but once more, after it did, for rates that are over.
  if (moves || mine.moves) {
    at("summary").replaceChildren(...flat(mine.view.summary?.(data)));
    at("shown").replaceChildren(...flat(mine.view.show(data)));
  }
  mine.moves = moves;
  mine.shown = text;
}

/** Does something that was asked for. That it was refused is said until something else is done. */
async function act(mine, action) {
  try {
    await action();
    mine.refused = null;
  } catch (error) {
    mine.refused = error;
  }
  await refresh(mine);
}

function tell(problem) {
  at("problem").hidden = problem === null;
  at("problem").textContent = problem?.message ?? "";
  if (problem?.status === 401) at("key").hidden = false;
  at("state").textContent = problem ? "" : `as of ${new Date().toLocaleTimeString()}`;
}

/** A tab that nobody sees asks for nothing. */
function whenSeen(action) {
  if (!document.hidden) action();
  else document.addEventListener("visibilitychange", action, { once: true });
}

at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(event.target.elements.key.value);
  event.target.reset();
  at("key").hidden = true;
  open();
});
addEventListener("hashchange", open);
open();
