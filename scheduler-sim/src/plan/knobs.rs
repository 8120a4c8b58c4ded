//! The numbers of a plan by name, so that a history can be played with other ones, and shrunk.

use super::Plan;

/// A number of a plan that can be changed from outside.
pub(crate) struct Knob {
    /// What it is called on the command line and among the regressions.
    pub(crate) name: &'static str,
    /// The least, with which it does as little as it can.
    pub(crate) least: u64,
    pub(crate) get: fn(&Plan) -> u64,
    pub(crate) set: fn(&mut Plan, u64),
}

macro_rules! knobs {
    (
        counts { $($count:literal: $of:ident,)* }
        numbers { $($name:literal: $least:literal $first:ident $(. $rest:ident)*,)* }
    ) => {
        /// Every knob, in the order in which a history is shrunk by them.
        pub(crate) const KNOBS: &[Knob] = &[
            $(Knob {
                name: $count,
                least: 1,
                get: |plan| plan.$of.try_into().unwrap_or(u64::MAX),
                set: |plan, value| plan.$of = value.try_into().unwrap_or(1),
            },)*
            $(Knob {
                name: $name,
                least: $least,
                get: |plan| plan.$first $(. $rest)*,
                set: |plan, value| plan.$first $(. $rest)* = value,
            },)*
        ];
    };
}

knobs! {
    counts {
        "nodes": nodes,
        "workers": workers,
    }
    numbers {
        "heal": 1 heal_at,
        "batches": 1 batches,
        "node-crash": 0 every.node_crash,
        "node-pause": 0 every.node_pause,
        "rolling": 0 every.rolling,
        "worker-crash": 0 every.worker_crash,
        "worker-pause": 0 every.worker_pause,
        "worker-drain": 0 every.worker_drain,
        "cut": 0 every.cut,
        "partition": 0 every.partition,
        "rebalance": 0 every.rebalance,
        "store-outage": 0 every.store_outage,
        "store-slowness": 0 every.store_slowness,
        "log-outage": 0 every.log_outage,
        "leap": 0 every.leap,
        "cancel": 0 every.cancel,
        "hasten": 0 every.hasten,
        "redrive": 0 every.redrive,
        "policy": 0 every.policy,
        "pause": 0 every.pipeline_pause,
        "growth": 0 every.growth,
        "loss": 0 every.loss,
        "panic": 0 every.panic,
        "damage": 0 every.damage,
        "earlier": 0 earlier,
        "fleet": 0 fleet,
        "pollers": 0 pollers,
        "more-nodes": 0 more_nodes,
        "moves": 0 every.moves,
        "stubborn": 0 stubborn,
        "burst": 0 burst,
        "longer": 0 tasks.longer,
        "store-unavailable": 0 store.unavailable,
        "store-lost-reply": 0 store.lost_reply,
        "store-late": 0 store.late,
        "store-slow": 0 store.slow,
        "log-unavailable": 0 log.unavailable,
        "log-lost-reply": 0 log.lost_reply,
        "log-twice": 0 log.twice,
        "log-gaps": 0 log.gaps,
        "truncate-lost": 0 log.truncate_lost,
        "net-slow": 0 net.slow,
        "clock-skew": 0 clock_skew,
        "clock-drift": 0 clock_drift,
        "long": 0 tasks.long,
        "flaky": 0 tasks.flaky,
        "failing": 0 tasks.failing,
        "rejecting": 0 tasks.rejecting,
        "poison": 0 tasks.poison,
        "hanging": 0 tasks.hanging,
        "deaf": 0 tasks.deaf,
        "nonsense": 0 tasks.nonsense,
        "delayed": 0 tasks.delayed,
        "deadline": 0 tasks.deadline,
        "keyed": 0 tasks.keyed,
        "hot": 0 tasks.hot,
        "batch": 1 batch,
        "longest": 1 tasks.longest,
        "max-params": 1 tasks.max_params,
        "store-latency": 1 store.latency,
        "log-latency": 1 log.latency,
        "net-latency": 1 net.latency,
    }
}

impl Plan {
    /// Gives a knob another value.
    pub(crate) fn change(&mut self, name: &str, value: u64) -> Result<(), String> {
        let knob = KNOBS.iter().find(|knob| knob.name == name).ok_or_else(|| {
            let names: Vec<&str> = KNOBS.iter().map(|knob| knob.name).collect();
            format!("plan: there is no `{name}`; there are {}", names.join(", "))
        })?;
        if value < knob.least {
            let least = knob.least;
            return Err(format!("plan: `{name}` is {value}; it must be at least {least}"));
        }
        (knob.set)(self, value);
        Ok(())
    }
}
