//! The contract of [`CheckpointStore`](scheduler_core::port::store::CheckpointStore) on parked tasks.

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{Attempt, Offset};
use scheduler_core::outcome::ParkedTask;
use scheduler_core::task::TaskSpec;

use super::{StoreWorld, Stores, at, checkpoint, claim, save, shard};

/// Makes a test of each sentence of the contract; takes an expression that makes a fresh [`StoreWorld`].
#[macro_export]
macro_rules! parked_contract {
    ($world:expr) => {
        $crate::contract_tests!(
            parked,
            $world,
            the_earliest_come_first,
            a_list_goes_on_where_the_last_ended,
            parking_again_replaces,
            what_was_unparked_is_gone,
            a_parked_task_is_found_by_its_id,
            parked_tasks_are_listed_by_offset,
            a_restart_keeps_parked_tasks,
        );
    };
}

/// A parked task.
pub(super) fn task(offset: u64, wake_at: u64) -> ParkedTask {
    ParkedTask {
        offset: Offset(offset),
        wake_at: at(wake_at),
        attempts: Attempt(2),
        forgiven: 1,
        submitted_at: at(7),
        spec: TaskSpec::new(format!("{{\"offset\":{offset}}}")),
    }
}

async fn parked_world(world: &mut dyn StoreWorld, tasks: Vec<ParkedTask>) -> (Stores, Checkpoint) {
    let stores = world.open().await;
    let tenure = claim(&stores, shard(1, 0)).await;
    save(
        &stores,
        &Checkpoint {
            parked: tasks,
            ..checkpoint(tenure, 1)
        },
    )
    .await;
    (stores, checkpoint(tenure, 2))
}

async fn due(stores: &Stores, until: u64, after: Option<(u64, u64)>, limit: usize) -> Vec<(u64, u64)> {
    let after = after.map(|(wake_at, offset)| (at(wake_at), Offset(offset)));
    let tasks = stores
        .checkpoints
        .parked(shard(1, 0), at(until), after, limit)
        .await
        .expect("a list");
    tasks
        .iter()
        .map(|task| (task.wake_at.as_millis(), task.offset.0))
        .collect()
}

/// What is due is listed by its time, then by its offset; what is due later is not.
pub async fn the_earliest_come_first(world: &mut dyn StoreWorld) {
    let tasks = vec![
        task(9, 300),
        task(4, 100),
        task(3, 200),
        task(2, 200),
        task(8, 0),
        task(1, u64::MAX),
    ];
    let (stores, _) = parked_world(world, tasks).await;
    assert_eq!(due(&stores, 199, None, 10).await, [(0, 8), (100, 4)]);
    assert_eq!(
        due(&stores, 200, None, 10).await,
        [(0, 8), (100, 4), (200, 2), (200, 3)]
    );
    assert_eq!(due(&stores, u64::MAX, None, 10).await.len(), 6);
    assert_eq!(
        stores
            .checkpoints
            .parked(shard(1, 1), at(500), None, 10)
            .await
            .expect("a list"),
        []
    );
}

/// With `after` and `limit` a long list is taken in pieces.
pub async fn a_list_goes_on_where_the_last_ended(world: &mut dyn StoreWorld) {
    let tasks: Vec<ParkedTask> = (0..50).map(|n| task(n, n / 5 * 10)).collect();
    let (stores, _) = parked_world(world, tasks).await;
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let piece = due(&stores, 1000, after, 7).await;
        assert!(piece.len() <= 7);
        after = piece.last().copied().or(after);
        let last = piece.is_empty();
        all.extend(piece);
        if last {
            break;
        }
    }
    assert_eq!(all, (0..50).map(|n| (n / 5 * 10, n)).collect::<Vec<_>>());
    assert_eq!(due(&stores, 20, Some((500, 0)), 7).await, []);
}

/// A task that is parked again has only its new time.
pub async fn parking_again_replaces(world: &mut dyn StoreWorld) {
    let (stores, next) = parked_world(world, vec![task(1, 100), task(2, 100)]).await;
    let replaced = ParkedTask {
        attempts: Attempt(3),
        ..task(1, 50)
    };
    save(
        &stores,
        &Checkpoint {
            parked: vec![replaced.clone(), task(2, 100)],
            ..next
        },
    )
    .await;
    assert_eq!(due(&stores, 1000, None, 10).await, [(50, 1), (100, 2)]);
    let found = stores
        .checkpoints
        .parked_task(shard(1, 0).task(Offset(1)))
        .await
        .expect("a look");
    assert_eq!(found, Some(replaced));
}

/// An unparked task is found nowhere.
pub async fn what_was_unparked_is_gone(world: &mut dyn StoreWorld) {
    let (stores, next) = parked_world(world, vec![task(1, 100), task(2, 200)]).await;
    save(
        &stores,
        &Checkpoint {
            unparked: vec![Offset(1), Offset(77)],
            ..next
        },
    )
    .await;
    assert_eq!(due(&stores, 1000, None, 10).await, [(200, 2)]);
    assert_eq!(
        stores
            .checkpoints
            .parked_task(shard(1, 0).task(Offset(1)))
            .await
            .expect("a look"),
        None
    );
    let listed = stores
        .archive
        .parked_tasks(shard(1, 0), Offset(100), 10)
        .await
        .expect("a list");
    assert_eq!(listed, [task(2, 200)]);
}

/// A parked task comes back as it was.
pub async fn a_parked_task_is_found_by_its_id(world: &mut dyn StoreWorld) {
    let (stores, _) = parked_world(world, vec![task(1, 100)]).await;
    let look = |place, offset| {
        stores
            .checkpoints
            .parked_task(super::ShardId::task(place, Offset(offset)))
    };
    assert_eq!(look(shard(1, 0), 1).await.expect("a look"), Some(task(1, 100)));
    assert_eq!(look(shard(1, 0), 2).await.expect("a look"), None);
    assert_eq!(look(shard(1, 1), 1).await.expect("a look"), None);
}

/// For people, parked tasks are listed by their offsets, the highest first.
pub async fn parked_tasks_are_listed_by_offset(world: &mut dyn StoreWorld) {
    let (stores, _) = parked_world(world, (0..10).map(|n| task(n, 1000 - n)).collect()).await;
    let list = async |before: u64, limit: usize| {
        let tasks = stores
            .archive
            .parked_tasks(shard(1, 0), Offset(before), limit)
            .await
            .expect("a list");
        tasks.iter().map(|task| task.offset.0).collect::<Vec<_>>()
    };
    assert_eq!(list(100, 3).await, [9, 8, 7]);
    assert_eq!(list(7, 3).await, [6, 5, 4]);
    assert_eq!(list(2, 3).await, [1, 0]);
    assert_eq!(list(0, 3).await, [0u64; 0]);
}

/// Parked tasks outlive a restart and a change of owner.
pub async fn a_restart_keeps_parked_tasks(world: &mut dyn StoreWorld) {
    let (stores, _) = parked_world(world, vec![task(1, 100), task(2, 50)]).await;
    drop(stores);
    let stores = world.open().await;
    claim(&stores, shard(1, 0)).await;
    assert_eq!(due(&stores, 1000, None, 10).await, [(50, 2), (100, 1)]);
}
