//! What is wrong with shards, in words for people.

use scheduler_core::host::Trouble;
use scheduler_core::id::ShardId;

/// What is wrong, and what can be done about it.
pub(super) fn text(shard: ShardId, trouble: &Trouble) -> String {
    let alone = |problem: &str| {
        format!(
            "shard {shard} does not run: {problem}; once that is mended, pause and resume the pipeline to try again"
        )
    };
    match trouble {
        Trouble::Quarantined { owners } => alone(&format!(
            "it is quarantined, because its last {owners} owners died before they saved anything"
        )),
        Trouble::Damaged(damage) => alone(&format!("its saved state cannot be read: {damage}")),
        Trouble::Broken(problem) => alone(problem),
        Trouble::Taken(epoch) => format!(
            "shard {shard} does not run here: another node has taken it, with epoch {}; it is claimed again soon",
            epoch.0
        ),
        Trouble::LostRecords(missing) => {
            format!("shard {shard}: its log has lost {missing} records before their time")
        }
        Trouble::ReadFailed(problem) => {
            format!("shard {shard}: it takes no new tasks from its log: {problem}")
        }
        Trouble::NoParked(problem) => format!("shard {shard}: its parked tasks do not come back: {problem}"),
    }
}
