//! What a pipeline has to do, as scaling sees it.

use scheduler_core::id::PipelineId;
use scheduler_core::port::gateway::PipelineLoad;

fn idle() -> PipelineLoad {
    PipelineLoad {
        pipeline: PipelineId(1),
        paused: false,
        backlog: 0,
        ready: 0,
        delayed: 0,
        running: 0,
        timed: 7,
        busy_ms: 7,
    }
}

#[test]
fn a_pipeline_is_idle_if_nothing_is_to_do_or_to_come() {
    assert!(idle().is_idle());
    let busy = [
        PipelineLoad { backlog: 1, ..idle() },
        PipelineLoad { ready: 1, ..idle() },
        PipelineLoad { delayed: 1, ..idle() },
        PipelineLoad { running: 1, ..idle() },
    ];
    assert!(busy.iter().all(|load| !load.is_idle()));
}

#[test]
fn what_waits_is_in_the_log_or_loaded_and_nothing_waits_while_the_pipeline_is_paused() {
    let load = PipelineLoad {
        backlog: 2,
        ready: 3,
        delayed: 5,
        running: 7,
        ..idle()
    };
    assert_eq!(load.waiting(), 5);
    assert_eq!(PipelineLoad { paused: true, ..load }.waiting(), 0);
}
