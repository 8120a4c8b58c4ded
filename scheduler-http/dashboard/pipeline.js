// One pipeline: how it fares, what can be done with it, its tasks and its dead letters.

import { asked, get, path, post, send } from "./api.js";
import { button, card, count, el, link, moment, opaque, state, table } from "./dom.js";
import { condition, Pages, Rate } from "./lists.js";

const STATES = ["queued", "delayed", "running", "succeeded", "dead", "cancelled", "expired"];

export function pipeline({ changed, act }, application, name) {
  const base = path("applications", application, "pipelines", name);
  const tasks = new Pages();
  const letters = new Pages();
  const rate = new Rate();
  let wanted = "";

  const only = el(
    "select",
    {
      name: "state",
      onchange: (event) => {
        wanted = event.target.value;
        tasks.begin();
        changed();
      },
    },
    el("option", { value: "" }, "in any state"),
    STATES.map((one) => el("option", { value: one }, one)),
  );

  return {
    async load() {
      const [pipeline, list, dead] = await Promise.all([
        get(base),
        get(asked(`${base}/tasks`, tasks.query({ state: wanted }))),
        get(asked(`${base}/dead-letters`, letters.query())),
      ]);
      return { pipeline, list, dead };
    },
    summary: ({ pipeline }) => [
      cards(pipeline, rate),
      (pipeline.problems ?? []).map((problem) => el("p", { class: "failed" }, problem)),
      pipeline.rollout?.problem && el("p", { class: "failed" }, pipeline.rollout.problem),
      actions(base, pipeline, act),
    ],
    tools: ({ pipeline }) => [
      submission(base, application, name, pipeline, act),
      pipeline.rollout && scaling(base, pipeline, act),
      el("label", { class: "row" }, "Tasks", only),
    ],
    show: ({ pipeline, list, dead }) => [
      el("h2", {}, "Tasks"),
      table(
        [
          ["id", (task) => link([application, name, task.id], task.id)],
          ["state", (task) => state(task.state)],
          ["attempts", (task) => count(task.attempts), true],
          ["accepted", (task) => moment(task.submitted_at)],
          ["ended", (task) => moment(task.finished_at)],
          ["error", (task) => task.error ?? ""],
        ],
        list.items,
        "There is none.",
      ),
      tasks.buttons(list, changed),
      dead.items.length > 0 && deadLetters(base, application, name, dead, act),
      letters.buttons(dead, changed),
      el("h2", {}, "Definition and policy"),
      opaque({ definition: pipeline.definition, policy: pipeline.policy, chart: pipeline.chart, replicas: pipeline.replicas }),
    ],
  };
}

function cards(pipeline, rate) {
  const { counts, rollout } = pipeline;
  return el(
    "div",
    { class: "cards" },
    card("state", condition(pipeline), condition(pipeline)),
    card("waiting", count(counts.backlog + counts.ready)),
    card("delayed", count(counts.delayed)),
    card("running", count(counts.running)),
    card("succeeded", count(counts.succeeded)),
    card("a second", rate.of("", counts.succeeded) || "–"),
    card("dead letters", count(counts.dead), counts.dead > 0 ? "dead" : undefined),
    card("workers", rollout ? `${count(counts.workers)} of ${count(rollout.wanted)}` : count(counts.workers)),
    card("partitions", count(pipeline.partitions)),
  );
}

function actions(base, pipeline, act) {
  if (pipeline.deleting) return null;
  const pause = pipeline.paused
    ? button("Resume", () => act(() => post(`${base}/resume`)))
    : button("Pause", () => act(() => post(`${base}/pause`)));
  return el("div", { class: "row" }, pause);
}

function scaling(base, pipeline, act) {
  const { min = 0, max } = pipeline.replicas ?? {};
  const workers = el("input", { name: "workers", type: "number", min, max, value: pipeline.rollout.wanted, "aria-label": "Workers" });
  const scale = (event) => {
    event.preventDefault();
    act(() => post(`${base}/scale`, { workers: workers.valueAsNumber }));
  };
  return el("form", { class: "row", onsubmit: scale }, "Workers", workers, el("button", {}, "Scale"));
}

/** A form for one task, with the params that the definition asks for. */
function submission(base, application, name, pipeline, act) {
  const params = pipeline.definition?.params ?? {};
  const known = params.required ?? Object.keys(params.properties ?? {});
  const text = JSON.stringify(Object.fromEntries(known.map((param) => [param, ""])), null, 2);
  const input = el("textarea", { name: "params", spellcheck: "false", "aria-label": "Params of a task" }, text);
  const said = el("span", { id: "submitted" });
  const submit = (event) => {
    event.preventDefault();
    act(async () => {
      const { id } = await send("POST", base, input.value);
      said.replaceChildren("accepted: ", link([application, name, id], id));
    });
  };
  return el(
    "details",
    {},
    el("summary", {}, "Submit a task"),
    el("form", { onsubmit: submit }, input, el("div", { class: "row" }, el("button", {}, "Submit"), said)),
  );
}

function deadLetters(base, application, name, dead, act) {
  const redrive = (which) => act(() => post(`${base}/dead-letters/redrive`, which));
  const purge = () =>
    confirm(`Delete all dead letters of ${name} for good?`) && act(() => post(`${base}/dead-letters/purge`, { all: true }));
  return [
    el("h2", {}, "Dead letters"),
    el("div", { class: "row" }, button("Redrive all", () => redrive({ all: true })), button("Purge all", purge)),
    table(
      [
        ["id", (letter) => link([application, name, letter.id], letter.id)],
        ["died", (letter) => moment(letter.died_at)],
        ["attempts", (letter) => count(letter.attempts), true],
        ["error", (letter) => letter.error],
        ["", (letter) => button("Redrive", () => redrive({ ids: [letter.id] }))],
      ],
      dead.items,
      "",
    ),
  ];
}
