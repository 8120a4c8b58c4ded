//! Smaller histories that break the same promise: changes of a plan, and the search for them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::History;
use crate::plan::{KNOBS, Plan};
use crate::rng::Rng;
use crate::world::World;

/// Numbers of a plan that are other than their seed has drawn them: `name=value,name=value`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes(Vec<(&'static str, u64)>);

impl FromStr for Changes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut changes = Self::default();
        let mut plan = Plan::draw(&mut Rng::new(0));
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("plan: `{part}` must be `name=value`"))?;
            let number = value
                .parse()
                .map_err(|_| format!("plan: `{value}` of `{name}` must be a whole number"))?;
            plan.change(name, number)?;
            let known = KNOBS.iter().find(|knob| knob.name == name);
            changes.0.extend(known.map(|knob| (knob.name, number)));
        }
        Ok(changes)
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        f.write_str(&parts.join(","))
    }
}

impl Changes {
    /// Whether the plan is as it was drawn.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn apply(&self, plan: &mut Plan) {
        for (name, value) in &self.0 {
            // They were checked as they were read, or are of this list.
            let _ = plan.change(name, *value);
        }
    }

    fn with(&self, name: &'static str, value: u64) -> Self {
        let mut changed = self.clone();
        changed.0.retain(|(other, _)| *other != name);
        changed.0.push((name, value));
        changed
    }
}

/// Looks for a smaller history of the same seed that breaks the same promise, for at most `budget`.
///
/// Greedy: each number of the plan is set to its least, or else halved, as long as that still breaks the promise, until nothing helps.
pub fn shrink(history: &History, changes: &Changes, budget: Duration) -> Changes {
    let Some(violation) = &history.violation else {
        return changes.clone();
    };
    let over = Instant::now() + budget;
    let seed = history.seed;
    let breaks = |changes: &Changes| {
        let again = crate::play(seed, changes, false);
        again
            .violation
            .is_some_and(|again| again.promise == violation.promise)
    };
    let mut best = changes.clone();
    loop {
        let before = best.clone();
        for knob in KNOBS {
            let mut plan = World::plan_of(seed, &best);
            let mut value = (knob.get)(&plan);
            while value > knob.least && Instant::now() < over {
                // A mean time of 0 is never: what is not needed at all goes first.
                let least = best.with(knob.name, knob.least);
                if breaks(&least) {
                    best = least;
                    break;
                }
                let half = best.with(knob.name, (value / 2).max(knob.least));
                if !breaks(&half) {
                    break;
                }
                best = half;
                plan = World::plan_of(seed, &best);
                value = (knob.get)(&plan);
            }
        }
        if best == before || Instant::now() >= over {
            return best;
        }
    }
}
