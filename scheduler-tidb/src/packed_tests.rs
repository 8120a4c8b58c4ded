//! Packed results unpack as what they were. Apart from `packed.rs`, which the fuzz targets compile by themselves.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use scheduler_testkit::strategy;

use crate::packed::*;
use scheduler_core::id::Offset;
use scheduler_core::outcome::FinishedTask;

proptest! {
    #[test]
    fn what_is_packed_comes_back_in_order(tasks in vec((0u64..20_000, strategy::finished_task()), 0..50)) {
        let finished: Vec<FinishedTask> = tasks
            .into_iter()
            .map(|(offset, task)| FinishedTask { offset: Offset(offset), ..task })
            .collect();
        let mut found = Vec::new();
        for segment in pack(&finished) {
            prop_assert!(segment.last.0 - segment.first.0 < SPAN);
            let tasks = unpack(segment.body.into()).expect("it opens");
            prop_assert_eq!(tasks[0].offset, segment.first);
            prop_assert_eq!(tasks[tasks.len() - 1].offset, segment.last);
            found.extend(tasks);
        }
        let expected: BTreeMap<Offset, FinishedTask> =
            finished.into_iter().map(|task| (task.offset, task)).collect();
        prop_assert_eq!(found, expected.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_break_the_opening(bytes in vec(any::<u8>(), 0..200)) {
        let _ = unpack(bytes.into());
    }
}
