//! What a run has exercised. A branch of interest that it never reached is named at its end.

macro_rules! points {
    ($($name:ident: $text:literal,)*) => {
        /// Something that must happen now and then, lest a run prove little.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Point {
            $(#[doc = $text] $name,)*
        }

        const TEXTS: &[&str] = &[$($text,)*];
    };
}

points! {
    NodeCrash: "a node crashed",
    NodePause: "a node was paused",
    RollingRestart: "a node was drained and restarted",
    WorkerCrash: "a worker crashed",
    WorkerPause: "a worker was paused",
    ManySessions: "a worker had sessions with several owners",
    OwnersUnknown: "a worker was not told who owns what",
    Polled: "a worker without a session began a task",
    PollGone: "tasks were given for a poll whose caller had gone",
    PollElsewhere: "a report without a session was to be made again",
    WorkerDrain: "a worker was drained",
    WorkerDrained: "a drained worker ended with everything settled",
    Poisoned: "a task killed its worker",
    Cut: "a connection was cut",
    Partitioned: "a connection went silent",
    Rebalanced: "placement moved shards",
    RevokeTimeout: "a shard was declared lost because it was not let go",
    ZombieFenced: "a save of a replaced owner was fenced",
    RowsOfAnother: "a replaced owner read rows after another had claimed the shard",
    ReclaimedAfterFence: "a fenced owner that is still assigned claimed anew",
    Quarantined: "a shard was quarantined",
    Panicked: "what drives a node's machines panicked",
    CameUp: "a node came up again after a panic",
    Damaged: "a shard could not be saved, and was left alone",
    SavedApart: "checkpoints were saved one by one",
    EarlierClock: "a process began on an earlier clock than the one before it",
    StoreUnavailable: "the store was unavailable",
    StoreLostReply: "the store did as asked and its answer was lost",
    StoreLate: "the store did as asked long after its caller had given up",
    StoreSlowness: "the store was slow for a while",
    ClockLeap: "a node's clock went ahead at once",
    HotPartition: "a batch went to the hot partition",
    StoreOutage: "the store was away for a while",
    LogLostReply: "an append happened and its answer was lost",
    LogOutage: "the log was away for a while",
    LogGap: "the log had a gap",
    LogLost: "the log lost records before their time",
    Missing: "a shard was told that records are gone",
    Grown: "the pipeline got another partition",
    LogTwice: "a record was written twice",
    Parked: "a task was parked",
    Carried: "a task was carried over",
    MadeRoom: "a ready task made room for what a worker holds",
    Unparked: "a row was dropped",
    Revived: "a dead letter was revived",
    Dead: "a task died",
    Expired: "a task expired",
    Cancelled: "a task was cancelled",
    Duplicate: "a task was the duplicate of an earlier one of its key",
    Nonsense: "a record was no task",
    Fetched: "a parked task was fetched for a change",
    FetchAgain: "a fetched row was too old and was read again",
    Hastened: "a task was hastened",
    WindowFull: "a change was refused because the window was full",
    HelloReported: "a worker presented reports in its hello",
    HelloHeld: "a worker presented leases in its hello",
    AdoptedUnclean: "a shard came up after its owner vanished",
    AdoptedReleased: "a shard came up after its owner released it",
    LateReport: "a report came for a task that had ended",
    LeaseRepeated: "a task was leased again in a later epoch",
    Settled: "reports were settled",
    Stopped: "a worker was told to stop a task",
    SessionSwept: "a session was ended by its node",
    NextPage: "a page of parked tasks was not the last",
    PolicyChanged: "the policy changed",
    PipelinePaused: "the pipeline was paused",
    ManyRecoveries: "a shard had five epochs or more",
}

const COUNT: usize = TEXTS.len();

/// How often each point of interest was reached.
#[derive(Clone, Debug)]
pub struct Coverage([u64; COUNT]);

impl Default for Coverage {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

impl Coverage {
    pub(crate) fn hit(&mut self, point: Point) {
        self.0[point as usize] += 1;
    }

    /// Adds what another history has reached.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    /// What was never reached.
    pub fn missed(&self) -> Vec<&'static str> {
        self.counts()
            .filter(|(_, count)| *count == 0)
            .map(|(text, _)| text)
            .collect()
    }

    /// Everything, with how often it was reached.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        TEXTS.iter().copied().zip(self.0)
    }
}
