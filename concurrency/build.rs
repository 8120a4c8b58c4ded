//! Copies the files that are looked at, with the locks of the model checker for those of the standard library: once as they are, and once
//! with each of some deliberate bugs. Production code knows nothing of it.
//!
//! For each subject one file is made that has a module for every copy: `as_it_is`, and one for each bug. In it lie `subject`, the copy, and
//! `model`, the file of the same name in `models/`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// A file that is looked at.
struct Subject {
    name: &'static str,
    file: &'static str,
    /// What lies once in the file, and what stands there instead.
    swaps: &'static [(&'static str, &'static str)],
    bugs: &'static [Bug],
}

/// A deliberate bug: one of the models must see it.
struct Bug {
    name: &'static str,
    from: &'static str,
    to: &'static str,
}

const SUBJECTS: [Subject; 4] = [
    Subject {
        name: "outbox",
        file: "scheduler-runtime/src/actor/outbox.rs",
        swaps: &[
            ("use std::sync::{", "use shuttle::sync::{"),
            ("use tokio::sync::Notify;", "use scheduler_concurrency::Notify;"),
            ("PoisonError};", "};\nuse std::sync::PoisonError;"),
        ],
        bugs: &[
            Bug {
                name: "what_is_put_is_told_to_nobody",
                from: "        drop(inner);\n        self.changed.notify_one();",
                to: "        drop(inner);",
            },
            Bug {
                name: "it_is_told_before_it_is_put",
                from: "        let mut inner = self.lock();\n        if inner.is_deaf || inner.bytes > MOST_BYTES {\n            return false;\n        }\n        \
                       inner.bytes += events.iter().map(weight).sum::<usize>();\n        if inner.events.is_empty() {\n            \
                       std::mem::swap(&mut inner.events, events);\n        } else {\n            inner.events.append(events);\n        }\n        \
                       drop(inner);\n        self.changed.notify_one();",
                to: "        self.changed.notify_one();\n        let mut inner = self.lock();\n        if inner.is_deaf || inner.bytes > MOST_BYTES {\n            \
                     return false;\n        }\n        inner.bytes += events.iter().map(weight).sum::<usize>();\n        inner.events.append(events);",
            },
            Bug {
                name: "the_end_is_told_to_nobody",
                from: "        self.lock().is_over = true;\n        self.changed.notify_one();",
                to: "        self.lock().is_over = true;",
            },
            Bug {
                name: "the_end_overtakes_what_was_put",
                from: "                if !inner.events.is_empty() {",
                to: "                if !inner.events.is_empty() && !inner.is_over {",
            },
            Bug {
                name: "what_is_taken_back_stays",
                from: "        inner.is_over = true;\n        std::mem::take(&mut inner.events)",
                to: "        inner.is_over = true;\n        inner.events.clone()",
            },
            Bug {
                name: "nobody_hears_that_the_transport_has_gone",
                from: "self.0.lock().is_deaf = true;",
                to: "self.0.lock().is_deaf = false;",
            },
        ],
    },
    Subject {
        name: "queue",
        file: "scheduler-embedded/src/log/queue.rs",
        swaps: &[
            ("use std::sync::{", "use shuttle::sync::{"),
            (", PoisonError};", "};\nuse std::sync::PoisonError;"),
        ],
        bugs: &[
            Bug {
                name: "what_is_pushed_is_told_to_nobody",
                from: "        if state.commands.len() == 1 {\n            self.ready.notify_one();\n        }\n",
                to: "",
            },
            Bug {
                name: "only_the_second_is_told",
                from: "state.commands.len() == 1",
                to: "state.commands.len() == 2",
            },
            Bug {
                name: "the_end_is_told_to_nobody",
                from: "        self.lock().closed = true;\n        self.ready.notify_one();",
                to: "        self.lock().closed = true;",
            },
            Bug {
                name: "it_takes_what_nobody_will_do",
                from: "        if state.closed {\n            return Err(Closed);\n        }\n",
                to: "",
            },
            Bug {
                name: "the_end_is_looked_at_before_the_lock",
                from: "        let mut state = self.lock();\n        if state.closed {\n            return Err(Closed);\n        }\n",
                to: "        if self.lock().closed {\n            return Err(Closed);\n        }\n        let mut state = self.lock();\n",
            },
            Bug {
                name: "what_waits_is_not_done_at_the_end",
                from: "(!commands.is_empty()).then_some(commands)",
                to: "(!state.closed).then_some(commands)",
            },
            Bug {
                name: "what_is_abandoned_stays",
                from: "std::mem::take(&mut state.commands)\n        };",
                to: "VecDeque::<T>::new()\n        };",
            },
        ],
    },
    Subject {
        name: "chores",
        file: "scheduler-embedded/src/log/chores.rs",
        swaps: &[
            ("use std::sync::{", "use shuttle::sync::{"),
            (", PoisonError};", "};\nuse std::sync::PoisonError;"),
            // There is no time in a model: a pause is any number of others' steps.
            (
                "drop(self.ready.wait_timeout_while(state, PAUSE, |state| !state.closed));",
                "drop(state);\n        shuttle::thread::sleep(PAUSE);",
            ),
        ],
        bugs: &[
            Bug {
                name: "waking_is_told_to_nobody",
                from: "        self.lock().work.segments = true;\n        self.ready.notify_one();",
                to: "        self.lock().work.segments = true;",
            },
            Bug {
                name: "a_truncation_is_told_to_nobody",
                from: "        state.work.trim.extend(trim);\n        drop(state);\n        self.ready.notify_one();",
                to: "        state.work.trim.extend(trim);\n        drop(state);",
            },
            Bug {
                name: "a_deletion_is_told_to_nobody",
                from: "        state.work.deleted.insert(pipeline);\n        drop(state);\n        self.ready.notify_one();",
                to: "        state.work.deleted.insert(pipeline);\n        drop(state);",
            },
            Bug {
                name: "the_end_is_told_to_nobody",
                from: "        self.lock().closed = true;\n        self.ready.notify_one();",
                to: "        self.lock().closed = true;",
            },
            Bug {
                name: "what_is_put_back_drives_out_what_has_come",
                from: "        state.work.trim.extend(left.trim);\n        state.work.deleted.extend(left.deleted);",
                to: "        state.work.trim = left.trim;\n        state.work.deleted = left.deleted;",
            },
            Bug {
                name: "it_does_not_look_for_the_end",
                from: "!state.closed && state.work.is_none()",
                to: "state.work.is_none()",
            },
        ],
    },
    Subject {
        name: "gather",
        file: "scheduler-kafka/src/log/gather.rs",
        swaps: &[
            ("use std::sync::{", "use shuttle::sync::{"),
            (", PoisonError};", "};\nuse std::sync::PoisonError;"),
        ],
        bugs: &[
            Bug {
                name: "the_work_ends_after_the_lock",
                from: "        let mut state = self.lock();\n        let count = state.waiting.len().min(most);\n        state.at_work = count > 0;\n        \
                       (count > 0).then(|| state.waiting.drain(..count).collect())",
                to: "        let mut state = self.lock();\n        let count = state.waiting.len().min(most);\n        let taken: Vec<T> = \
                     state.waiting.drain(..count).collect();\n        drop(state);\n        self.lock().at_work = count > 0;\n        \
                     (count > 0).then_some(taken)",
            },
            Bug {
                name: "everybody_is_at_work",
                from: "!std::mem::replace(&mut state.at_work, true)",
                to: "!state.at_work",
            },
            Bug {
                name: "nobody_is_at_work_again",
                from: "        state.at_work = count > 0;\n",
                to: "",
            },
            Bug {
                name: "what_is_beyond_the_most_is_lost",
                from: "state.waiting.drain(..count).collect()",
                to: "std::mem::take(&mut state.waiting).into_iter().take(count).collect()",
            },
        ],
    },
];

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where this is"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where it goes"));
    println!("cargo::rerun-if-changed=build.rs");
    for subject in &SUBJECTS {
        let file = here.join("..").join(subject.file);
        println!("cargo::rerun-if-changed={}", file.display());
        let original =
            fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut text = original;
        for (from, to) in subject.swaps {
            text = swap(subject.file, &text, from, to);
        }
        let model = here.join("models").join(subject.name).with_extension("rs");
        let directory = out.join(subject.name);
        fs::create_dir_all(&directory).expect("the directory for what is built can be written");
        let mut modules = String::new();
        add(&mut modules, &directory, &model, "as_it_is", &text);
        let mut list = String::new();
        for Bug { name, from, to } in subject.bugs {
            add(
                &mut modules,
                &directory,
                &model,
                name,
                &swap(subject.file, &text, from, to),
            );
            writeln!(list, "    (\"{name}\", {name}::model::ALL),").expect("a string takes everything");
        }
        writeln!(modules, "const BROKEN: &[(&str, &[Model])] = &[\n{list}];")
            .expect("a string takes everything");
        write(&out.join(subject.name).with_extension("rs"), &modules);
    }
}

/// Writes a copy, and the module that holds it beside its model.
fn add(modules: &mut String, directory: &Path, model: &Path, name: &str, text: &str) {
    let copy = directory.join(name).with_extension("rs");
    write(&copy, text);
    writeln!(
        modules,
        "mod {name} {{\n    #[path = \"{}\"]\n    mod subject;\n    #[path = \"{}\"]\n    pub(super) mod model;\n}}",
        copy.display(),
        model.display()
    )
    .expect("a string takes everything");
}

fn swap(file: &str, text: &str, from: &str, to: &str) -> String {
    let places = text.matches(from).count();
    assert!(
        places == 1,
        "this lies {places} times in {file}, and must lie there once (concurrency/build.rs):\n{from}"
    );
    text.replacen(from, to, 1)
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
