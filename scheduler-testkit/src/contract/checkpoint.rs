//! The contract of [`CheckpointStore`](scheduler_core::port::store::CheckpointStore): claims, saves and fencing.

use bytes::Bytes;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{Epoch, NodeId, Offset, PipelineId, Tenure};
use scheduler_core::key::{KeyHash, SeenKey};
use scheduler_core::port::store::{PreviousOwner, Saved};
use scheduler_core::time::Timestamp;

use super::{StoreWorld, checkpoint, claim, save, shard};

/// Makes a test of each sentence of the contract; takes an expression that makes a fresh [`StoreWorld`].
#[macro_export]
macro_rules! checkpoint_contract {
    ($world:expr) => {
        $crate::contract_tests!(
            checkpoint,
            $world,
            a_first_claim_finds_nothing,
            each_claim_raises_the_epoch,
            the_epoch_is_that_of_the_last_claim,
            claims_at_once_get_different_epochs,
            a_claim_finds_the_newest_checkpoint,
            a_claim_learns_how_the_last_owner_left,
            epochs_without_a_checkpoint_are_counted,
            a_repeated_claim_is_no_death,
            an_older_epoch_changes_nothing,
            a_fenced_checkpoint_does_not_hinder_the_others,
            a_shard_that_nobody_claimed_is_fenced,
            a_released_tenure_is_fenced,
            a_replaced_tenure_cannot_release,
            the_same_save_again_changes_nothing,
            a_restart_keeps_checkpoints,
            a_forgotten_pipeline_is_fenced_and_begins_anew,
            idempotency_keys_are_kept_until_they_expire,
        );
    };
}

fn with_state(tenure: Tenure, id: u64, resume: u64, state: &'static str) -> Checkpoint {
    Checkpoint {
        resume: Offset(resume),
        state: Bytes::from(state),
        ..checkpoint(tenure, id)
    }
}

/// The first owner of a shard begins at the start.
pub async fn a_first_claim_finds_nothing(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let claimed = stores
        .checkpoints
        .claim(shard(1, 0), NodeId(1))
        .await
        .expect("a claim succeeds");
    assert_eq!(claimed.previous, PreviousOwner::None);
    assert_eq!(
        (claimed.resume, claimed.state, claimed.barren_epochs),
        (Offset::ZERO, Bytes::new(), 0)
    );
    assert!(claimed.epoch > Epoch(0));
}

/// A claim's epoch is one more than the last one's; shards count apart.
pub async fn each_claim_raises_the_epoch(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let first = claim(&stores, shard(1, 0)).await.epoch;
    for n in 1..5 {
        assert_eq!(claim(&stores, shard(1, 0)).await.epoch, Epoch(first.0 + n));
    }
    assert_eq!(claim(&stores, shard(1, 1)).await.epoch, first);
}

/// Of claims that run at the same time no two get the same epoch.
pub async fn claims_at_once_get_different_epochs(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let mut claims = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let stores = stores.clone();
        claims.spawn(async move { claim(&stores, shard(1, 0)).await.epoch });
    }
    let mut epochs = claims.join_all().await;
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), 20);
}

/// A new owner resumes where the last checkpoint says.
pub async fn a_claim_finds_the_newest_checkpoint(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenure = claim(&stores, shard(1, 0)).await;
    save(&stores, &with_state(tenure, 1, 10, "one")).await;
    save(&stores, &with_state(tenure, 2, 20, "two")).await;
    let claimed = stores
        .checkpoints
        .claim(shard(1, 0), NodeId(2))
        .await
        .expect("a claim succeeds");
    assert_eq!((claimed.resume, claimed.state), (Offset(20), Bytes::from("two")));
    let again = stores
        .checkpoints
        .claim(shard(1, 0), NodeId(2))
        .await
        .expect("a claim succeeds");
    assert_eq!(
        (again.resume, again.state),
        (Offset(20), Bytes::from("two")),
        "a claim alone changes nothing of it"
    );
}

/// A new owner is told whether the last one let go or vanished.
pub async fn a_claim_learns_how_the_last_owner_left(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenure = claim(&stores, shard(1, 0)).await;
    stores
        .checkpoints
        .release(tenure)
        .await
        .expect("a release succeeds");
    let claimed = stores
        .checkpoints
        .claim(shard(1, 0), NodeId(1))
        .await
        .expect("a claim succeeds");
    assert_eq!(claimed.previous, PreviousOwner::Released);
    let claimed = stores
        .checkpoints
        .claim(shard(1, 0), NodeId(1))
        .await
        .expect("a claim succeeds");
    assert_eq!(claimed.previous, PreviousOwner::Vanished);
}

/// Epochs that vanish one after the other without saving are counted, until one saves.
pub async fn epochs_without_a_checkpoint_are_counted(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    for barren in 0..4 {
        let claimed = stores
            .checkpoints
            .claim(shard(1, 0), NodeId(barren.into()))
            .await
            .expect("a claim succeeds");
        assert_eq!(claimed.barren_epochs, barren);
        if barren == 3 {
            save(
                &stores,
                &checkpoint(
                    Tenure {
                        shard: shard(1, 0),
                        epoch: claimed.epoch,
                    },
                    1,
                ),
            )
            .await;
        }
    }
    let claimed = stores
        .checkpoints
        .claim(shard(1, 0), NodeId(1))
        .await
        .expect("a claim succeeds");
    assert_eq!(claimed.barren_epochs, 0);
}

/// A node that claims again, because it has not heard the answer, lives: its epochs do not count as its death.
pub async fn a_repeated_claim_is_no_death(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let barren = async |node| {
        let claimed = stores.checkpoints.claim(shard(1, 0), NodeId(node)).await;
        claimed.expect("a claim succeeds").barren_epochs
    };
    assert_eq!(barren(1).await, 0);
    assert_eq!(barren(1).await, 0);
    assert_eq!(barren(2).await, 1);
    assert_eq!(barren(2).await, 1);
    assert_eq!(barren(1).await, 2);
}

/// A save under an older epoch is fenced with the newer one's number, and changes nothing.
pub async fn an_older_epoch_changes_nothing(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let old = claim(&stores, shard(1, 0)).await;
    save(&stores, &with_state(old, 1, 10, "old")).await;
    let new = claim(&stores, shard(1, 0)).await;
    save(&stores, &with_state(new, 1, 20, "new")).await;
    let late = with_state(old, 2, 30, "late");
    let saved = stores
        .checkpoints
        .save(&[&late])
        .await
        .expect("fencing is an answer");
    assert_eq!(saved, [Saved::Fenced { stored: new.epoch }]);
    let claimed = stores
        .checkpoints
        .claim(shard(1, 0), NodeId(1))
        .await
        .expect("a claim succeeds");
    assert_eq!((claimed.resume, claimed.state), (Offset(20), Bytes::from("new")));
}

/// In one save, every checkpoint has an answer of its own, in order.
pub async fn a_fenced_checkpoint_does_not_hinder_the_others(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let first = claim(&stores, shard(1, 0)).await;
    let replaced = claim(&stores, shard(1, 1)).await;
    let newer = claim(&stores, shard(1, 1)).await;
    let last = claim(&stores, shard(2, 0)).await;
    let all = [first, replaced, last].map(|tenure| with_state(tenure, 1, 5, "saved"));
    let saved = stores
        .checkpoints
        .save(&all.each_ref())
        .await
        .expect("fencing is an answer");
    assert_eq!(
        saved,
        [Saved::Done, Saved::Fenced { stored: newer.epoch }, Saved::Done]
    );
    for (place, resume) in [(shard(1, 0), 5), (shard(1, 1), 0), (shard(2, 0), 5)] {
        let claimed = stores
            .checkpoints
            .claim(place, NodeId(1))
            .await
            .expect("a claim succeeds");
        assert_eq!(claimed.resume, Offset(resume), "{place}");
    }
}

/// Nobody saves without a claim.
pub async fn a_shard_that_nobody_claimed_is_fenced(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenure = Tenure {
        shard: shard(1, 0),
        epoch: Epoch(1),
    };
    let saved = stores
        .checkpoints
        .save(&[&checkpoint(tenure, 1)])
        .await
        .expect("fencing is an answer");
    assert!(matches!(saved[..], [Saved::Fenced { .. }]), "{saved:?}");
    let claimed = stores
        .checkpoints
        .claim(shard(1, 0), NodeId(1))
        .await
        .expect("a claim succeeds");
    assert_eq!(claimed.previous, PreviousOwner::None);
}

/// Whoever asks for a shard's epoch hears that of its last claim, whatever became of the owner.
pub async fn the_epoch_is_that_of_the_last_claim(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let epoch = async || stores.checkpoints.epoch(shard(1, 0)).await.expect("an epoch");
    assert_eq!(epoch().await, Epoch(0));
    claim(&stores, shard(1, 1)).await;
    assert_eq!(epoch().await, Epoch(0), "the other shard's");
    let first = claim(&stores, shard(1, 0)).await;
    assert_eq!(epoch().await, first.epoch);
    let newer = claim(&stores, shard(1, 0)).await;
    assert_eq!(epoch().await, newer.epoch);
    stores.checkpoints.release(newer).await.expect("a release");
    assert_eq!(epoch().await, newer.epoch);
}

/// After its release a tenure saves nothing more.
pub async fn a_released_tenure_is_fenced(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenure = claim(&stores, shard(1, 0)).await;
    save(&stores, &with_state(tenure, 1, 10, "last")).await;
    stores
        .checkpoints
        .release(tenure)
        .await
        .expect("a release succeeds");
    stores
        .checkpoints
        .release(tenure)
        .await
        .expect("a second release is no error");
    let late = with_state(tenure, 2, 20, "late");
    let saved = stores
        .checkpoints
        .save(&[&late])
        .await
        .expect("fencing is an answer");
    assert_eq!(saved, [Saved::Fenced { stored: tenure.epoch }]);
    let claimed = stores
        .checkpoints
        .claim(shard(1, 0), NodeId(1))
        .await
        .expect("a claim succeeds");
    assert_eq!(
        (claimed.previous, claimed.resume),
        (PreviousOwner::Released, Offset(10))
    );
}

/// A late release does not take the shard from its new owner.
pub async fn a_replaced_tenure_cannot_release(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let old = claim(&stores, shard(1, 0)).await;
    let new = claim(&stores, shard(1, 0)).await;
    stores
        .checkpoints
        .release(old)
        .await
        .expect("a late release is no error");
    save(&stores, &with_state(new, 1, 10, "new")).await;
}

/// A save whose answer was lost can be said again.
pub async fn the_same_save_again_changes_nothing(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenure = claim(&stores, shard(1, 0)).await;
    let once = Checkpoint {
        finished: vec![super::archive::finished(3)],
        dead: vec![super::archive::dead(4)],
        parked: vec![super::parked::task(5, 100)],
        ..with_state(tenure, 1, 10, "state")
    };
    save(&stores, &once).await;
    save(&stores, &once).await;
    assert_eq!(
        stores.archive.dead_count(PipelineId(1)).await.expect("a count"),
        1
    );
    let results = stores
        .archive
        .results(shard(1, 0), Offset(100), 10)
        .await
        .expect("a list");
    assert_eq!(results, [super::archive::finished(3)]);
    let parked = stores
        .archive
        .parked_tasks(shard(1, 0), Offset(100), 10)
        .await
        .expect("a list");
    assert_eq!(parked, [super::parked::task(5, 100)]);
}

/// What was saved, claimed and released before a restart holds after it.
pub async fn a_restart_keeps_checkpoints(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let kept = claim(&stores, shard(1, 0)).await;
    save(&stores, &with_state(kept, 1, 10, "kept")).await;
    let released = claim(&stores, shard(1, 1)).await;
    stores
        .checkpoints
        .release(released)
        .await
        .expect("a release succeeds");
    drop(stores);

    let stores = world.open().await;
    let claimed = stores
        .checkpoints
        .claim(shard(1, 0), NodeId(2))
        .await
        .expect("a claim succeeds");
    assert_eq!((claimed.resume, claimed.state), (Offset(10), Bytes::from("kept")));
    assert_eq!(
        (claimed.epoch, claimed.previous),
        (Epoch(kept.epoch.0 + 1), PreviousOwner::Vanished)
    );
    let claimed = stores
        .checkpoints
        .claim(shard(1, 1), NodeId(2))
        .await
        .expect("a claim succeeds");
    assert_eq!(claimed.previous, PreviousOwner::Released);
}

/// Of a forgotten pipeline nothing is left, and its owners are fenced; another pipeline is untouched.
pub async fn a_forgotten_pipeline_is_fenced_and_begins_anew(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let tenures = [
        claim(&stores, shard(1, 0)).await,
        claim(&stores, shard(2, 0)).await,
    ];
    for tenure in tenures {
        let full = Checkpoint {
            finished: vec![super::archive::finished(3)],
            dead: vec![super::archive::dead(4)],
            parked: vec![super::parked::task(5, 100)],
            ..with_state(tenure, 1, 10, "state")
        };
        save(&stores, &full).await;
    }
    stores
        .checkpoints
        .forget(PipelineId(1))
        .await
        .expect("forgetting succeeds");
    let saved = stores
        .checkpoints
        .save(&[&checkpoint(tenures[0], 2)])
        .await
        .expect("fencing is an answer");
    assert!(matches!(saved[..], [Saved::Fenced { .. }]), "{saved:?}");
    save(&stores, &checkpoint(tenures[1], 2)).await;

    for (pipeline, left) in [(1, false), (2, true)] {
        let place = shard(pipeline, 0);
        let archive = &stores.archive;
        assert_eq!(
            archive
                .result(place.task(Offset(3)))
                .await
                .expect("a look")
                .is_some(),
            left
        );
        assert_eq!(
            archive
                .results(place, Offset(100), 10)
                .await
                .expect("a list")
                .len(),
            usize::from(left)
        );
        assert_eq!(
            archive
                .dead_task(place.task(Offset(4)))
                .await
                .expect("a look")
                .is_some(),
            left
        );
        assert_eq!(
            archive.dead_count(PipelineId(pipeline)).await.expect("a count"),
            u64::from(left)
        );
        let parked = stores
            .checkpoints
            .parked_task(place.task(Offset(5)))
            .await
            .expect("a look");
        assert_eq!(parked.is_some(), left);
        assert_eq!(
            archive
                .parked_tasks(place, Offset(100), 10)
                .await
                .expect("a list")
                .len(),
            usize::from(left)
        );
    }
    let claimed = stores
        .checkpoints
        .claim(shard(1, 0), NodeId(1))
        .await
        .expect("a claim succeeds");
    assert_eq!(
        (claimed.previous, claimed.resume),
        (PreviousOwner::None, Offset::ZERO)
    );
}

/// Keys come back to the next owner of their shard, the latest of each hash, and expire.
pub async fn idempotency_keys_are_kept_until_they_expire(world: &mut dyn StoreWorld) {
    let stores = world.open().await;
    let seen = |key: &str, offset, expires_at| SeenKey {
        hash: KeyHash::of(key.as_bytes()),
        offset: Offset(offset),
        expires_at: Timestamp::from_millis(expires_at),
    };
    let tenure = Tenure {
        shard: shard(1, 0),
        epoch: claim(&stores, shard(1, 0)).await.epoch,
    };
    let with_keys = |id, keys| Checkpoint {
        keys,
        ..checkpoint(tenure, id)
    };
    let first = with_keys(1, vec![seen("a", 1, 10), seen("b", 2, 20)]);
    save(&stores, &first).await;
    let again = with_keys(2, vec![seen("a", 7, 30)]);
    save(&stores, &again).await;
    drop(stores);

    let stores = world.open().await;
    let keys = async |shard| {
        let mut keys = stores.checkpoints.keys(shard, 10).await.expect("keys are there");
        keys.sort_by_key(|key| key.offset);
        keys
    };
    assert_eq!(keys(shard(1, 0)).await, [seen("b", 2, 20), seen("a", 7, 30)]);
    assert_eq!(keys(shard(1, 1)).await, []);
    assert_eq!(
        stores
            .checkpoints
            .keys(shard(1, 0), 1)
            .await
            .expect("one is there")
            .len(),
        1
    );
    while stores
        .archive
        .expire(Timestamp::from_millis(20))
        .await
        .expect("it expires")
    {}
    assert_eq!(keys(shard(1, 0)).await, [seen("a", 7, 30)]);
    stores
        .checkpoints
        .forget(PipelineId(1))
        .await
        .expect("it is forgotten");
    assert_eq!(keys(shard(1, 0)).await, []);
}
