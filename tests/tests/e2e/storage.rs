//! Where the servers of a test keep things: each has files of its own.

/// Nothing that is shared.
pub(crate) struct Storage;

impl Storage {
    /// A directory belongs to one server.
    pub(crate) const NODES: usize = 1;

    #[expect(clippy::unused_async, reason = "another storage has to be made first")]
    pub(crate) async fn new() -> Self {
        Self
    }

    /// What a server has to be told beside its directory.
    #[expect(clippy::unused_self, reason = "another storage has a name")]
    pub(crate) fn arguments(&self) -> Vec<String> {
        Vec::new()
    }
}
