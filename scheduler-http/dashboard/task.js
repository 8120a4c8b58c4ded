// One task.

import { get, path, post } from "./api.js";
import { button, el, moment, opaque, state } from "./dom.js";

const LIVE = ["queued", "delayed", "running"];

export function task({ act }, application, name, id) {
  const base = path("applications", application, "pipelines", name, "tasks", id);
  return {
    load: () => get(base),
    show: (task) => [
      el("h2", {}, `Task ${task.id}`),
      facts([
        ["state", state(task.state)],
        ["why it waits", task.waiting?.detail],
        ["attempts", task.attempts],
        ["priority", task.priority],
        ["accepted", moment(task.submitted_at)],
        ["last attempt", moment(task.started_at)],
        ["next attempt", moment(task.next_attempt_at)],
        ["ended", moment(task.finished_at)],
        ["why it is dead", task.dead_reason],
        ["error", task.error && el("pre", {}, task.error)],
        ["params", task.params !== undefined && opaque(task.params)],
        ["progress", task.progress !== undefined && opaque(task.progress)],
      ]),
      el(
        "div",
        { class: "row" },
        LIVE.includes(task.state) && button("Cancel", () => act(() => post(`${base}/cancel`))),
        ["delayed", "dead"].includes(task.state) && button("Try it now", () => act(() => post(`${base}/retry`))),
      ),
      task.output !== undefined && [el("h2", {}, "Output"), outputs(task.output)],
    ],
  };
}

function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== undefined && value !== "" && value !== false);
  return el("table", { class: "facts" }, el("tbody", {}, known.map(([name, value]) => el("tr", {}, el("th", {}, name), el("td", {}, value)))));
}

/** An agent's output is the standard output of each command, by step and executor; any other worker's is what it likes. */
function outputs(output) {
  const steps = output && typeof output === "object" && !Array.isArray(output) ? Object.entries(output) : [];
  const isAgents = steps.length > 0 && steps.every(([, texts]) => Array.isArray(texts) && texts.every((text) => typeof text === "string"));
  if (!isAgents) return opaque(output);
  return steps.map(([step, texts]) => [el("h2", {}, step), texts.filter((text) => text !== "").map(opaque)]);
}
