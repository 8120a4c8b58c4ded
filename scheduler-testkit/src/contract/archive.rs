//! The contract of [`Archive`](scheduler_core::port::store::Archive).

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{Attempt, Offset, PipelineId};
use scheduler_core::outcome::{DeadReason, DeadTask, Ending, FinishedTask};
use scheduler_core::task::TaskSpec;

use super::{StoreWorld, Stores, at, checkpoint, claim, parked, save, shard};

/// Makes a test of each sentence of the contract; takes an expression that makes a fresh [`StoreWorld`].
#[macro_export]
macro_rules! archive_contract {
    ($world:expr) => {
        $crate::contract_tests!(
            archive,
            $world,
            a_result_is_found_by_its_id,
            results_of_many_checkpoints_are_listed_in_one_order,
            results_expire_in_their_time,
            dead_letters_are_found_listed_and_counted,
            dead_letters_expire_in_their_time,
            a_revived_dead_letter_is_parked,
            a_dead_letter_that_died_again_has_its_new_time,
            purged_dead_letters_are_gone,
            much_expires_in_bounded_steps,
            a_restart_keeps_the_archive,
        );
    };
}

/// A result.
pub(super) fn finished(offset: u64) -> FinishedTask {
    FinishedTask {
        offset: Offset(offset),
        ending: [Ending::Succeeded, Ending::Cancelled, Ending::Expired]
            [usize::try_from(offset % 3).unwrap_or(0)],
        attempts: Attempt(1),
        submitted_at: at(1),
        started_at: at(2),
        finished_at: at(3),
        output: format!("{{\"offset\":{offset},\"text\":\"{}\"}}", "so long ".repeat(20)).into(),
    }
}

/// A dead letter.
pub(super) fn dead(offset: u64) -> DeadTask {
    DeadTask {
        offset: Offset(offset),
        reason: DeadReason::AttemptsExhausted,
        error: format!("no luck with {offset}"),
        attempts: Attempt(5),
        submitted_at: at(1),
        died_at: at(9),
        spec: TaskSpec::new("{}"),
    }
}

fn offsets(tasks: &[FinishedTask]) -> Vec<u64> {
    tasks.iter().map(|task| task.offset.0).collect()
}

async fn list_dead(stores: &Stores, before: u64, limit: usize) -> Vec<u64> {
    let tasks = stores
        .archive
        .dead_tasks(shard(1, 0), Offset(before), limit)
        .await
        .expect("a list");
    tasks.iter().map(|task| task.offset.0).collect()
}

async fn expire(stores: &Stores, now: u64) {
    while stores.archive.expire(at(now)).await.expect("expiry succeeds") {}
}

/// Results are found by id, whichever checkpoint saved them and in whatever order they ended.
pub async fn a_result_is_found_by_its_id(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenure = claim(&stores, shard(1, 0)).await;
    for id in 0..10 {
        // Each checkpoint ends every tenth task, the last first, so that their stretches overlap.
        let ended = (0..1000).rev().map(|n| finished(n * 10 + id)).collect();
        save(
            &stores,
            &Checkpoint {
                finished: ended,
                ..checkpoint(tenure, id + 1)
            },
        )
        .await;
    }
    for offset in [0, 1, 9, 4095, 4096, 5000, 8191, 9999] {
        let found = stores
            .archive
            .result(shard(1, 0).task(Offset(offset)))
            .await
            .expect("a look");
        assert_eq!(found, Some(finished(offset)));
    }
    for missing in [
        shard(1, 0).task(Offset(10_000)),
        shard(1, 1).task(Offset(0)),
        shard(2, 0).task(Offset(0)),
    ] {
        assert_eq!(stores.archive.result(missing).await.expect("a look"), None);
    }
}

/// A list of results is in the order of offsets, whole, and can be taken in pieces.
pub async fn results_of_many_checkpoints_are_listed_in_one_order(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenure = claim(&stores, shard(1, 0)).await;
    for id in 0..3 {
        let ended = (0..2000).map(|n| finished(n * 3 + id)).collect();
        save(
            &stores,
            &Checkpoint {
                finished: ended,
                ..checkpoint(tenure, id + 1)
            },
        )
        .await;
    }
    let mut all = Vec::new();
    let mut before = u64::MAX;
    loop {
        let piece = stores
            .archive
            .results(shard(1, 0), Offset(before), 999)
            .await
            .expect("a list");
        let piece = offsets(&piece);
        let Some(&last) = piece.last() else { break };
        before = last;
        all.extend(piece);
    }
    assert_eq!(all, (0..6000).rev().collect::<Vec<_>>());
    let few = stores
        .archive
        .results(shard(1, 0), Offset(4097), 3)
        .await
        .expect("a list");
    assert_eq!(few, [finished(4096), finished(4095), finished(4094)]);
    assert_eq!(
        stores
            .archive
            .results(shard(1, 0), Offset(10), 0)
            .await
            .expect("a list"),
        []
    );
    assert_eq!(
        stores
            .archive
            .results(shard(1, 1), Offset(10), 5)
            .await
            .expect("a list"),
        []
    );
}

/// Results stay until their time, and those that have none stay for good.
pub async fn results_expire_in_their_time(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenure = claim(&stores, shard(1, 0)).await;
    let early = Checkpoint {
        finished: vec![finished(1)],
        expire_results: at(100),
        ..checkpoint(tenure, 1)
    };
    let late = Checkpoint {
        finished: vec![finished(2)],
        expire_results: at(200),
        ..checkpoint(tenure, 2)
    };
    let never = Checkpoint {
        finished: vec![finished(3)],
        ..checkpoint(tenure, 3)
    };
    for checkpoint in [&early, &late, &never] {
        save(&stores, checkpoint).await;
    }
    for (now, left) in [
        (99, vec![3, 2, 1]),
        (100, vec![3, 2]),
        (199, vec![3, 2]),
        (u64::MAX, vec![3]),
    ] {
        expire(&stores, now).await;
        let results = stores
            .archive
            .results(shard(1, 0), Offset(10), 10)
            .await
            .expect("a list");
        assert_eq!(offsets(&results), left, "at {now}");
    }
}

/// Dead letters are rows of their own.
pub async fn dead_letters_are_found_listed_and_counted(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenure = claim(&stores, shard(1, 0)).await;
    let other = claim(&stores, shard(1, 1)).await;
    save(
        &stores,
        &Checkpoint {
            dead: (0..10).map(dead).collect(),
            ..checkpoint(tenure, 1)
        },
    )
    .await;
    save(
        &stores,
        &Checkpoint {
            dead: vec![dead(3)],
            ..checkpoint(other, 1)
        },
    )
    .await;
    assert_eq!(list_dead(&stores, 100, 3).await, [9, 8, 7]);
    assert_eq!(list_dead(&stores, 2, 3).await, [1, 0]);
    assert_eq!(
        stores.archive.dead_count(PipelineId(1)).await.expect("a count"),
        11
    );
    assert_eq!(
        stores.archive.dead_count(PipelineId(2)).await.expect("a count"),
        0
    );
    let found = stores
        .archive
        .dead_task(shard(1, 1).task(Offset(3)))
        .await
        .expect("a look");
    assert_eq!(found, Some(dead(3)));
    assert_eq!(
        stores
            .archive
            .dead_task(shard(1, 1).task(Offset(4)))
            .await
            .expect("a look"),
        None
    );
}

/// Dead letters stay until their time, and the count goes with them.
pub async fn dead_letters_expire_in_their_time(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenure = claim(&stores, shard(1, 0)).await;
    let early = Checkpoint {
        dead: vec![dead(1), dead(2)],
        expire_dead: at(100),
        ..checkpoint(tenure, 1)
    };
    let never = Checkpoint {
        dead: vec![dead(3)],
        ..checkpoint(tenure, 2)
    };
    save(&stores, &early).await;
    save(&stores, &never).await;
    expire(&stores, 99).await;
    assert_eq!(
        stores.archive.dead_count(PipelineId(1)).await.expect("a count"),
        3
    );
    expire(&stores, 100).await;
    assert_eq!(list_dead(&stores, 100, 10).await, [3]);
    assert_eq!(
        stores.archive.dead_count(PipelineId(1)).await.expect("a count"),
        1
    );
}

/// A dead letter that lives again is a parked task and no longer a dead one.
pub async fn a_revived_dead_letter_is_parked(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenure = claim(&stores, shard(1, 0)).await;
    save(
        &stores,
        &Checkpoint {
            dead: vec![dead(1), dead(2)],
            ..checkpoint(tenure, 1)
        },
    )
    .await;
    let revived = Checkpoint {
        revived: vec![Offset(1)],
        parked: vec![parked::task(1, 0)],
        ..checkpoint(tenure, 2)
    };
    save(&stores, &revived).await;
    assert_eq!(list_dead(&stores, 100, 10).await, [2]);
    assert_eq!(
        stores.archive.dead_count(PipelineId(1)).await.expect("a count"),
        1
    );
    let parked = stores
        .checkpoints
        .parked_task(shard(1, 0).task(Offset(1)))
        .await
        .expect("a look");
    assert_eq!(parked, Some(parked::task(1, 0)));
}

/// What expires is the letter as it is now, not as it was when it died first.
pub async fn a_dead_letter_that_died_again_has_its_new_time(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenure = claim(&stores, shard(1, 0)).await;
    let first = Checkpoint {
        dead: vec![dead(1)],
        expire_dead: at(100),
        ..checkpoint(tenure, 1)
    };
    let second = Checkpoint {
        revived: vec![Offset(1)],
        dead: vec![dead(1)],
        expire_dead: at(200),
        ..checkpoint(tenure, 2)
    };
    save(&stores, &first).await;
    save(&stores, &second).await;
    expire(&stores, 150).await;
    assert_eq!(list_dead(&stores, 100, 10).await, [1]);
    assert_eq!(
        stores.archive.dead_count(PipelineId(1)).await.expect("a count"),
        1
    );
    expire(&stores, 200).await;
    assert_eq!(list_dead(&stores, 100, 10).await, [0u64; 0]);
    assert_eq!(
        stores.archive.dead_count(PipelineId(1)).await.expect("a count"),
        0
    );
}

/// A purge counts what was there.
pub async fn purged_dead_letters_are_gone(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenure = claim(&stores, shard(1, 0)).await;
    save(
        &stores,
        &Checkpoint {
            dead: (0..5).map(dead).collect(),
            ..checkpoint(tenure, 1)
        },
    )
    .await;
    let ids = [1, 3, 3, 77].map(|offset| shard(1, 0).task(Offset(offset)));
    assert_eq!(stores.archive.purge(&ids).await.expect("a purge succeeds"), 2);
    assert_eq!(stores.archive.purge(&ids).await.expect("a purge succeeds"), 0);
    assert_eq!(list_dead(&stores, 100, 10).await, [4, 2, 0]);
    assert_eq!(
        stores.archive.dead_count(PipelineId(1)).await.expect("a count"),
        3
    );
}

/// However much is due, expiry comes to its end.
pub async fn much_expires_in_bounded_steps(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenure = claim(&stores, shard(1, 0)).await;
    let much = Checkpoint {
        dead: (0..3000).map(dead).collect(),
        expire_dead: at(100),
        ..checkpoint(tenure, 1)
    };
    save(&stores, &much).await;
    expire(&stores, 100).await;
    assert_eq!(
        stores.archive.dead_count(PipelineId(1)).await.expect("a count"),
        0
    );
    assert_eq!(list_dead(&stores, 10_000, 10).await, [0u64; 0]);
}

/// Results and dead letters outlive a restart.
pub async fn a_restart_keeps_the_archive(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenure = claim(&stores, shard(1, 0)).await;
    let full = Checkpoint {
        finished: vec![finished(1)],
        dead: vec![dead(2)],
        ..checkpoint(tenure, 1)
    };
    save(&stores, &full).await;
    drop(stores);
    let stores = world.open().await;
    let result = stores
        .archive
        .result(shard(1, 0).task(Offset(1)))
        .await
        .expect("a look");
    assert_eq!(result, Some(finished(1)));
    let letter = stores
        .archive
        .dead_task(shard(1, 0).task(Offset(2)))
        .await
        .expect("a look");
    assert_eq!(letter, Some(dead(2)));
    assert_eq!(
        stores.archive.dead_count(PipelineId(1)).await.expect("a count"),
        1
    );
}
