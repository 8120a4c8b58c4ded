// The lists: applications, and the pipelines of one.

import { asked, get, path } from "./api.js";
import { button, count, el, link, moment, state, table } from "./dom.js";

const PAGE = 50;

/** Pages of a list, by the cursors that led to them. */
export class Pages {
  #cursors = [];

  query(more = {}) {
    return { ...more, limit: PAGE, cursor: this.#cursors.at(-1) };
  }

  begin() {
    this.#cursors = [];
  }

  buttons(list, changed) {
    const back = this.#cursors.length > 0 && button("Back", () => changed(this.#cursors.pop()));
    const next = list.next && button("More", () => changed(this.#cursors.push(list.next)));
    return el("div", { class: "row" }, back, next);
  }
}

/** How a pipeline fares, in a word. */
export function condition(pipeline) {
  if (pipeline.deleting) return "deleting";
  if (pipeline.paused) return "paused";
  return pipeline.rollout?.phase ?? "ready";
}

export function applications({ changed }) {
  const pages = new Pages();
  return {
    load: () => get(asked(path("applications"), pages.query())),
    show: (list) => [
      el("h2", {}, "Applications"),
      table(
        [
          ["name", (application) => link([application.name], application.name)],
          ["created", (application) => moment(application.created_at)],
        ],
        list.items,
        "There is none yet. The first pipeline that is created in an application makes it.",
      ),
      pages.buttons(list, changed),
    ],
  };
}

export function pipelines({ changed }, application) {
  const pages = new Pages();
  const rate = new Rate();
  return {
    load: () => get(asked(path("applications", application, "pipelines"), pages.query())),
    show: (list) => [
      el("h2", {}, "Pipelines"),
      table(
        [
          ["name", (pipeline) => link([application, pipeline.name], pipeline.name)],
          ["", (pipeline) => state(condition(pipeline))],
          ["waiting", ({ counts }) => count(counts.backlog + counts.ready), true],
          ["delayed", ({ counts }) => count(counts.delayed), true],
          ["running", ({ counts }) => count(counts.running), true],
          ["succeeded", ({ counts }) => count(counts.succeeded), true],
          ["a second", ({ name, counts }) => rate.of(name, counts.succeeded), true],
          ["dead letters", ({ counts }) => count(counts.dead), true],
          ["workers", ({ counts }) => count(counts.workers), true],
        ],
        list.items,
        "There is none in this application.",
      ),
      pages.buttons(list, changed),
    ],
  };
}

/** How fast a count grows, between two looks at it. */
export class Rate {
  #seen = new Map();

  of(name, value) {
    const now = performance.now();
    const before = this.#seen.get(name);
    this.#seen.set(name, { value, now });
    if (!before || now === before.now) return "";
    return count(Math.max(0, Math.round(((value - before.value) * 1000) / (now - before.now))));
  }
}
