//! What becomes of a pipeline whose actor panics: everything in memory is dropped as in a crash of the node, sessions end and their workers
//! come back, and after a pause the shards that live here are claimed again. Its mailbox lives on.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use scheduler_core::time::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::error;

use super::{BATCH, Message, PipelineActor};

/// The pause after a first panic; it doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Without a panic for so long, all is well again.
const FORGIVEN_AFTER: Duration = Duration::from_mins(10);

/// Messages on their way to an actor; those that it has not taken outlive it.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) receive: mpsc::Receiver<Message>,
    /// Messages of this turn, the last one first.
    pub(super) batch: Vec<Message>,
}

/// The panics of an actor.
#[derive(Clone, Debug, Default)]
pub(super) struct Crashes {
    /// In a row.
    count: u32,
    last: Option<(Timestamp, String)>,
}

impl Crashes {
    /// Counts one; answers how long to wait before the next try.
    fn count(&mut self, now: Timestamp, panic: String) -> Duration {
        self.count = if self.is_recent(now) {
            self.count.saturating_add(1)
        } else {
            1
        };
        self.last = Some((now, panic));
        (FIRST_PAUSE * (1 << (self.count - 1).min(6))).min(LONGEST_PAUSE)
    }

    fn is_recent(&self, now: Timestamp) -> bool {
        let last = self.last.as_ref();
        last.is_some_and(|(at, _)| now.since(*at) < FORGIVEN_AFTER)
    }

    /// What people are told of it.
    pub(super) fn problem(&self, now: Timestamp) -> Option<String> {
        let (at, panic) = self.last.as_ref().filter(|_| self.is_recent(now))?;
        Some(format!(
            "the pipeline's scheduler on this node has crashed {} times in a row, last {} s ago, and was started again: {panic}",
            self.count,
            now.since(*at).as_secs()
        ))
    }
}

impl PipelineActor {
    /// Runs the actor until it is told to stop or nobody is left to tell it anything, through every panic.
    pub(super) async fn run_supervised(mut self, receive: mpsc::Receiver<Message>) {
        let batch = Vec::new();
        let mut inbox = Inbox { receive, batch };
        loop {
            // What a panic leaves behind is dropped, but for what `afresh` takes over.
            let Err(panic) = AssertUnwindSafe(self.run(&mut inbox)).catch_unwind().await else {
                return;
            };
            let panic = text_of(&*panic);
            error!(pipeline = %self.pipeline.path, panic, "the actor of a pipeline has panicked");
            let pause = self.crashes.count(self.world.clock.now(), panic);
            self = self.afresh();
            if self.lie_low(&mut inbox, Instant::now() + pause).await {
                return;
            }
            let now = self.world.clock.now();
            self.host.come_up(now, &mut self.effects);
            self.act(now);
        }
    }

    /// Hears what must not be missed until `until`; answers whether it is over.
    async fn lie_low(&mut self, inbox: &mut Inbox, until: Instant) -> bool {
        loop {
            let now = self.world.clock.now();
            while let Some(message) = inbox.batch.pop() {
                match message {
                    Message::Assign(partitions) => self.host.note_assigned(&partitions),
                    // Nothing of them is here; whoever asks is answered by that.
                    Message::Revoke(partitions, _) | Message::Lose(partitions) => {
                        self.host.note_unassigned(&partitions);
                    }
                    Message::Update(_) | Message::Status(_) | Message::Drain(_) | Message::Stop => {
                        self.take(now, message);
                        self.act(now);
                    }
                    // Whoever waits for an answer is told that nobody is here.
                    _ => (),
                }
            }
            self.end_drain();
            self.next_turn();
            if self.is_stopped {
                return true;
            }
            tokio::select! {
                taken = inbox.receive.recv_many(&mut inbox.batch, BATCH) => {
                    if taken == 0 {
                        return true;
                    }
                    inbox.batch.reverse();
                }
                () = tokio::time::sleep_until(until) => return false,
            }
        }
    }
}

/// What a panic says.
pub(crate) fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it does not say why")
        .into()
}
