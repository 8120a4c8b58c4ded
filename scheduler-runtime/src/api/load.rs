//! What a pipeline has to do, and who does it, as its shards on this node say.

use std::sync::PoisonError;

use scheduler_core::port::deploy::BusyWorker;
use scheduler_core::port::gateway::{ApiError, PipelineLoad};

use super::{LocalNode, error};
use crate::actor::Message;
use crate::directory::Served;

impl LocalNode {
    /// What the shards here have to do. A pipeline that had nothing and has heard nothing since is not asked again.
    pub(crate) async fn load_of(&self, served: &Served) -> Result<PipelineLoad, ApiError> {
        let idle = *served.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((turn, load)) = idle
            && turn == served.mailbox.turns()
        {
            return Ok(PipelineLoad {
                paused: served.pipeline.paused,
                ..load
            });
        }
        let (status, backlog) = self.survey(served).await?;
        let load = PipelineLoad {
            pipeline: served.pipeline.id,
            paused: served.pipeline.paused,
            backlog,
            ready: status.counts.ready,
            delayed: status.counts.delayed,
            running: status.counts.running,
            timed: status.counts.timed,
            busy_ms: status.counts.busy_ms,
        };
        // A shard that is coming up has not said yet what it has.
        let all_up = status.tails.len() == self.shards_here(served).len();
        let turn = status.turn.filter(|_| all_up && load.is_idle());
        *served.idle.lock().unwrap_or_else(PoisonError::into_inner) = turn.map(|turn| (turn, load));
        Ok(load)
    }

    /// Which workers have tasks of the shards here.
    pub(crate) async fn busy_here(&self, served: &Served) -> Result<Vec<BusyWorker>, ApiError> {
        let busy = served.mailbox.ask(Message::Busy).await;
        busy.ok_or_else(|| error::unavailable("the pipeline is going away"))
    }
}
