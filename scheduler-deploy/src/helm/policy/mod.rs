//! What a chart may create. Every rule has a name that the refusal tells, and speaks of one object.

mod kinds;
mod pods;

use scheduler_core::port::deploy::DeployError;

use super::manifest::Object;
use crate::chart::invalid;

/// Refusals that are told at once.
const MOST_TOLD: usize = 8;

/// What the operator allows charts beyond the ordinary.
#[derive(Clone, Debug)]
pub struct ChartPolicy {
    /// Further kinds, as `Kind` or `group/Kind`. They must be kinds that live in a namespace. Default none.
    pub kinds: Vec<String>,
    /// Hooks, which run jobs before and after. Default no.
    pub hooks: bool,
    /// Pods that reach into their node: privileged, host network, host paths and so on. Default no.
    pub privileged: bool,
    /// Objects of a chart. Default 100.
    pub max_objects: usize,
    /// Bytes that it renders to. Default 1 MiB, about what helm can keep.
    pub max_rendered_bytes: usize,
}

impl Default for ChartPolicy {
    fn default() -> Self {
        Self {
            kinds: Vec::new(),
            hooks: false,
            privileged: false,
            max_objects: 100,
            max_rendered_bytes: 1 << 20,
        }
    }
}

/// Why an object is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Refusal {
    /// The rule's name.
    rule: &'static str,
    problem: String,
}

impl Refusal {
    fn new(rule: &'static str, problem: impl Into<String>) -> Self {
        Self {
            rule,
            problem: problem.into(),
        }
    }
}

/// What the check must know of where the objects are to live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) namespace: &'a str,
    /// The account of the application, under which charts are applied. No pod may be it.
    pub(crate) account: &'a str,
}

/// Checks all objects. [`DeployError::Invalid`] names each refused object and its rule.
pub(crate) fn check(objects: &[Object], place: Place<'_>, policy: &ChartPolicy) -> Result<(), DeployError> {
    let mut told = Vec::new();
    let mut more = 0;
    for object in objects {
        let mut refusals = Vec::new();
        kinds::check(object, place, policy, &mut refusals);
        if !policy.privileged
            && let Some(pod) = object.pod()
        {
            pods::check(pod, place, &mut refusals);
        }
        for refusal in refusals {
            if told.len() < MOST_TOLD {
                told.push(format!(
                    "{} breaks {}: {}",
                    object.title(),
                    refusal.rule,
                    refusal.problem
                ));
            } else {
                more += 1;
            }
        }
    }
    if told.is_empty() {
        return Ok(());
    }
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    Err(invalid("chart", told.join("; ")))
}
