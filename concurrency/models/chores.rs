//! From whoever finds something to do to the keeper.

use std::collections::BTreeSet;

use scheduler_concurrency::Model;
use scheduler_core::id::{Partition, PipelineId, ShardId};
use shuttle::sync::Arc;
use shuttle::sync::mpsc::channel;
use shuttle::thread;

use super::subject::{Chores, Work};

pub(crate) const ALL: &[Model] = &[
    what_was_asked_for_is_done,
    a_keeper_that_is_woken_wakes,
    what_failed_is_tried_again_with_what_has_come,
    a_keeper_without_work_ends,
];

fn shard(number: u32) -> ShardId {
    ShardId::new(PipelineId(1), Partition(number))
}

fn chores() -> Arc<Chores> {
    Arc::new(Chores::new(Work::default()))
}

fn what_was_asked_for_is_done() {
    let chores = chores();
    let keeper = {
        let chores = chores.clone();
        thread::spawn(move || {
            let (mut trimmed, mut deleted) = (BTreeSet::new(), BTreeSet::new());
            while trimmed.is_empty() || deleted.is_empty() {
                let work = chores.take().expect("it is not closed");
                assert!(work.segments);
                trimmed.extend(work.trim);
                deleted.extend(work.deleted);
            }
            (trimmed, deleted)
        })
    };
    let truncating = {
        let chores = chores.clone();
        thread::spawn(move || chores.truncated(Some(shard(1))))
    };
    chores.deleted(PipelineId(7));
    truncating.join().expect("it has asked");
    let done = keeper.join().expect("the keeper has done it");
    assert_eq!(done, (BTreeSet::from([shard(1)]), BTreeSet::from([PipelineId(7)])));
}

fn a_keeper_that_is_woken_wakes() {
    let chores = chores();
    let (done, seen) = channel();
    let keeper = {
        let chores = chores.clone();
        thread::spawn(move || {
            while let Some(work) = chores.take() {
                assert!(work.trim.is_empty() && work.deleted.is_empty());
                // Whoever waits for it may have seen enough.
                let _ = done.send(work.segments);
            }
        })
    };
    chores.wake();
    assert_eq!(seen.recv(), Ok(true));
    chores.truncated(None);
    assert_eq!(seen.recv(), Ok(true));
    chores.close();
    keeper.join().expect("the keeper ends");
}

fn what_failed_is_tried_again_with_what_has_come() {
    let chores = chores();
    let keeper = {
        let chores = chores.clone();
        thread::spawn(move || {
            let work = chores.take().expect("it is not closed");
            chores.put_back(work);
            let mut trimmed = BTreeSet::new();
            while trimmed.len() < 2 {
                trimmed.extend(chores.take().expect("it is not closed").trim);
            }
        })
    };
    chores.truncated(Some(shard(1)));
    chores.truncated(Some(shard(2)));
    keeper.join().expect("the keeper has done both");
}

fn a_keeper_without_work_ends() {
    let chores = chores();
    let keeper = {
        let chores = chores.clone();
        thread::spawn(move || chores.take().is_none())
    };
    chores.close();
    assert!(chores.is_closed());
    assert!(keeper.join().expect("the keeper ends"));
}
