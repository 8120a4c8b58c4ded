//! What the tasks of each scaled pipeline take, as this node has measured.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use scheduler_core::id::PipelineId;
use scheduler_core::port::gateway::PipelineLoad;
use scheduler_core::scaling::Pace;
use tokio::time::Instant;

/// Pipelines that are measured at once. Of more, the ones that nobody asked about for longest begin anew.
const MOST: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Paces {
    known: Mutex<HashMap<PipelineId, (Instant, Pace)>>,
}

impl Paces {
    /// Takes in what a pipeline has done; what one of its tasks takes.
    pub(super) fn observe(&self, load: &PipelineLoad) -> Option<Duration> {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(&load.pipeline) {
            forget_half(&mut known);
        }
        let (asked_at, pace) = known
            .entry(load.pipeline)
            .or_insert_with(|| (now, Pace::default()));
        *asked_at = now;
        pace.observe(load.timed, load.busy_ms)
    }
}

fn forget_half(known: &mut HashMap<PipelineId, (Instant, Pace)>) {
    let mut asked: Vec<Instant> = known.values().map(|(asked_at, _)| *asked_at).collect();
    let middle = asked.len() / 2;
    let (_, median, _) = asked.select_nth_unstable(middle);
    known.retain(|_, (asked_at, _)| *asked_at > *median);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_than_the_bound() {
        let paces = Paces::default();
        let load = |pipeline, timed| PipelineLoad {
            pipeline: PipelineId(pipeline),
            paused: false,
            backlog: 0,
            ready: 0,
            delayed: 0,
            running: 0,
            timed,
            busy_ms: timed * 1_000,
        };
        let most = u32::try_from(MOST).unwrap();
        for pipeline in 0..most * 3 {
            assert_eq!(paces.observe(&load(pipeline, 1)), Some(Duration::from_secs(1)));
        }
        let known = paces.known.lock().unwrap();
        assert!(known.len() <= MOST, "{}", known.len());
        assert!(
            known.contains_key(&PipelineId(most * 3 - 1)),
            "the latest is kept"
        );
    }
}
