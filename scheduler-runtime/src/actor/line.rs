//! What those who work for one shard (the forwarder, the checkpointer, calls of the store) have to tell it.

use scheduler_core::host::{Stay, Word};

use super::{Mailbox, Message};

/// The way to one stay of a shard.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(super) mailbox: Mailbox,
    pub(super) stay: Stay,
}

impl Line {
    /// Tells it, waiting for room. Answers whether there is an actor to hear it.
    pub(crate) async fn tell(&self, word: Word) -> bool {
        self.mailbox.tell(Message::Shard(self.stay, word)).await
    }
}
