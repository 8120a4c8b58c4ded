//! The contract of [`ClusterStore`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use scheduler_core::id::{Epoch, NodeId, Partition, PipelineId, Tenure};
use scheduler_core::port::catalog::{ApiKeyHash, Catalog, CatalogSnapshot, Client, Pipeline};
use scheduler_core::port::cluster::{CatalogChanges, CatalogVersion, ClusterStore, Member, Owner, Removed};

use super::catalog::{application, key, pipeline};
use super::{ClusterWorld, at, name, shard};

/// Makes a test of each sentence of the contract; takes an expression that makes a fresh [`ClusterWorld`].
#[macro_export]
macro_rules! cluster_contract {
    ($world:expr) => {
        $crate::contract_tests!(
            cluster,
            $world,
            who_beats_is_listed_by_all,
            who_leaves_is_no_longer_listed,
            who_is_silent_is_no_longer_listed,
            a_member_may_change_its_address,
            owners_are_who_claimed_last,
            what_was_released_has_no_owner,
            an_empty_catalog_has_changed_nothing,
            the_first_answer_is_whole,
            every_change_reaches_every_node,
            what_is_removed_and_added_again_is_there,
            a_version_from_the_future_gets_everything,
            writers_at_once_are_all_heard,
        );
    };
}

const LONG: Duration = Duration::from_hours(1);

fn member(id: u128) -> Member {
    Member {
        id: NodeId(id),
        name: format!("node-{id}"),
        address: format!("http://node-{id}.example:50051"),
    }
}

fn ids(members: &[Member]) -> Vec<u128> {
    members.iter().map(|member| member.id.0).collect()
}

/// What a node knows that applies the changes.
#[derive(Debug, Default)]
struct Known {
    version: CatalogVersion,
    catalog: CatalogSnapshot,
}

impl Known {
    async fn follow(&mut self, cluster: &dyn ClusterStore) -> CatalogChanges {
        let changes = cluster.changes(self.version).await.expect("changes");
        self.apply(changes.clone());
        changes
    }

    fn apply(&mut self, changes: CatalogChanges) {
        if changes.whole {
            assert_eq!(changes.removed, []);
            self.catalog = CatalogSnapshot::default();
        }
        self.version = changes.version;
        let known = &mut self.catalog;
        for removed in &changes.removed {
            match removed {
                Removed::Key(hash) => known.keys.retain(|key| key.hash != *hash),
                Removed::Application(client, name) => known
                    .applications
                    .retain(|known| known.client != *client || known.name != *name),
                Removed::Pipeline(id) => known.pipelines.retain(|pipeline| pipeline.id != *id),
            }
        }
        replace(&mut known.clients, changes.clients, |it| it.name.clone());
        replace(&mut known.keys, changes.keys, |it| it.hash);
        replace(&mut known.applications, changes.applications, |it| {
            (it.client.clone(), it.name.clone())
        });
        replace(&mut known.pipelines, changes.pipelines, |it| it.id);
    }
}

/// Puts `new` among `known`, in the order of their keys.
fn replace<T, K: Ord>(known: &mut Vec<T>, new: Vec<T>, key: impl Fn(&T) -> K) {
    let all = known.drain(..).chain(new).map(|it| (key(&it), it));
    *known = all.collect::<BTreeMap<_, _>>().into_values().collect();
}

async fn assert_known(known: &Known, catalog: &dyn Catalog) {
    let mut snapshot = catalog.snapshot().await.expect("a snapshot");
    replace(&mut snapshot.clients, Vec::new(), |it| it.name.clone());
    replace(&mut snapshot.keys, Vec::new(), |it| it.hash);
    replace(&mut snapshot.applications, Vec::new(), |it| {
        (it.client.clone(), it.name.clone())
    });
    replace(&mut snapshot.pipelines, Vec::new(), |it| it.id);
    assert_eq!(known.catalog, snapshot);
}

async fn add_acme(catalog: &dyn Catalog) {
    let client = Client {
        name: name("acme"),
        created_at: at(4),
    };
    catalog.add_client(client).await.expect("a client can be added");
    catalog
        .add_application(application("acme", "docs"))
        .await
        .expect("an application can be added");
}

/// Every node sees every node, by id, from its first beat.
pub async fn who_beats_is_listed_by_all(world: &mut dyn ClusterWorld) {
    let (one, other) = (world.open().await, world.open().await);
    let high = member(u128::MAX);
    assert_eq!(
        one.cluster.beat(&member(2), LONG).await.expect("a beat"),
        [member(2)]
    );
    assert_eq!(
        other.cluster.beat(&high, LONG).await.expect("a beat"),
        [member(2), high.clone()]
    );
    let all = [member(1), member(2), high];
    assert_eq!(other.cluster.beat(&member(1), LONG).await.expect("a beat"), all);
    assert_eq!(one.cluster.beat(&member(2), LONG).await.expect("a beat"), all);
}

/// Who leaves is gone at once; leaving again, or without having come, is no error.
pub async fn who_leaves_is_no_longer_listed(world: &mut dyn ClusterWorld) {
    let (one, other) = (world.open().await, world.open().await);
    one.cluster.beat(&member(1), LONG).await.expect("a beat");
    other.cluster.beat(&member(2), LONG).await.expect("a beat");
    for _ in 0..2 {
        one.cluster.leave(NodeId(1)).await.expect("a leave");
    }
    one.cluster.leave(NodeId(77)).await.expect("a leave");
    assert_eq!(
        other.cluster.beat(&member(2), LONG).await.expect("a beat"),
        [member(2)]
    );
    let back = one.cluster.beat(&member(1), LONG).await.expect("a beat");
    assert_eq!(ids(&back), [1, 2]);
}

/// Who is silent for its time is gone, also when it did not leave.
pub async fn who_is_silent_is_no_longer_listed(world: &mut dyn ClusterWorld) {
    let (one, other) = (world.open().await, world.open().await);
    other.cluster.beat(&member(3), LONG).await.expect("a beat");
    let own = one
        .cluster
        .beat(&member(1), Duration::from_millis(1))
        .await
        .expect("a beat");
    assert_eq!(ids(&own), [1, 3], "who beats lives, however short its time");
    let gone = async {
        while ids(&other.cluster.beat(&member(2), LONG).await.expect("a beat")) != [2, 3] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), gone)
        .await
        .expect("a silent member is gone after a millisecond, not a minute");
}

/// The last beat says what a member is.
pub async fn a_member_may_change_its_address(world: &mut dyn ClusterWorld) {
    let stores = world.open().await;
    stores.cluster.beat(&member(1), LONG).await.expect("a beat");
    let moved = Member {
        address: "https://scheduler-1.example:50051".into(),
        ..member(1)
    };
    let listed = stores.cluster.beat(&moved, LONG).await.expect("a beat");
    assert_eq!(listed, [moved]);
}

/// A shard's owner is who claimed it last, on every node.
pub async fn owners_are_who_claimed_last(world: &mut dyn ClusterWorld) {
    let (one, other) = (world.open().await, world.open().await);
    for (stores, partition, node) in [
        (&one, 0, 1),
        (&one, 2, 1),
        (&other, 1, u128::MAX),
        (&other, 2, u128::MAX),
    ] {
        let claimed = stores.checkpoints.claim(shard(1, partition), NodeId(node)).await;
        claimed.expect("a claim succeeds");
    }
    other
        .checkpoints
        .claim(shard(2, 0), NodeId(5))
        .await
        .expect("a claim succeeds");
    let owner = |partition, node, epoch| Owner {
        partition: Partition(partition),
        node: NodeId(node),
        epoch: Epoch(epoch),
    };
    let expected = [owner(0, 1, 1), owner(1, u128::MAX, 1), owner(2, u128::MAX, 2)];
    for stores in [&one, &other] {
        let owners = stores.cluster.owners(PipelineId(1)).await.expect("owners");
        assert_eq!(owners, expected);
        assert_eq!(stores.cluster.owners(PipelineId(3)).await.expect("owners"), []);
    }
}

/// A released shard has no owner until it is claimed again.
pub async fn what_was_released_has_no_owner(world: &mut dyn ClusterWorld) {
    let (one, other) = (world.open().await, world.open().await);
    let claimed = one
        .checkpoints
        .claim(shard(1, 0), NodeId(1))
        .await
        .expect("a claim succeeds");
    let tenure = Tenure {
        shard: shard(1, 0),
        epoch: claimed.epoch,
    };
    one.checkpoints.release(tenure).await.expect("a release succeeds");
    assert_eq!(other.cluster.owners(PipelineId(1)).await.expect("owners"), []);
    other
        .checkpoints
        .claim(shard(1, 0), NodeId(2))
        .await
        .expect("a claim succeeds");
    let owners = one.cluster.owners(PipelineId(1)).await.expect("owners");
    let nodes: Vec<NodeId> = owners.iter().map(|owner| owner.node).collect();
    assert_eq!(nodes, [NodeId(2)]);
}

/// Nothing is in the first answer of a new catalog.
pub async fn an_empty_catalog_has_changed_nothing(world: &mut dyn ClusterWorld) {
    let stores = world.open().await;
    let mut known = Known::default();
    known.follow(&*stores.cluster).await;
    known.follow(&*stores.cluster).await;
    assert_eq!(known.catalog, CatalogSnapshot::default());
}

/// For version 0, everything is listed that there is, and nothing that was removed.
pub async fn the_first_answer_is_whole(world: &mut dyn ClusterWorld) {
    let stores = world.open().await;
    add_acme(&*stores.catalog).await;
    stores
        .catalog
        .add_key(key(1, "acme"))
        .await
        .expect("a key can be added");
    stores
        .catalog
        .remove_key(ApiKeyHash([1; 32]))
        .await
        .expect("a key can be withdrawn");
    let added = stores.catalog.add_pipeline(pipeline("docs", "ocr")).await;
    added.expect("a pipeline can be added");
    let mut known = Known::default();
    let changes = known.follow(&*stores.cluster).await;
    assert!(changes.whole);
    assert_known(&known, &*stores.catalog).await;
}

/// Additions, changes and removals of everything are in the next answer, on every node, and only once.
pub async fn every_change_reaches_every_node(world: &mut dyn ClusterWorld) {
    let (one, other) = (world.open().await, world.open().await);
    let mut known = Known::default();
    add_acme(&*one.catalog).await;
    known.follow(&*other.cluster).await;
    assert_known(&known, &*one.catalog).await;

    one.catalog
        .add_application(application("acme", "photos"))
        .await
        .expect("an application can be added");
    for byte in [1, 2] {
        let added = one.catalog.add_key(key(byte, "acme")).await;
        added.expect("a key can be added");
    }
    let first = one
        .catalog
        .add_pipeline(pipeline("docs", "first"))
        .await
        .expect("a pipeline can be added");
    let second = one
        .catalog
        .add_pipeline(pipeline("docs", "second"))
        .await
        .expect("a pipeline can be added");
    known.follow(&*other.cluster).await;
    assert_known(&known, &*one.catalog).await;

    let changed = Pipeline {
        paused: true,
        ..first.clone()
    };
    let changed = one
        .catalog
        .update_pipeline(changed)
        .await
        .expect("an update succeeds");
    let changes = known.follow(&*other.cluster).await;
    assert!(!changes.whole, "what is known need not be sent again");
    assert_eq!(changes.pipelines, [Arc::new(changed)]);
    assert_eq!(
        (
            changes.clients.len(),
            changes.keys.len(),
            changes.applications.len()
        ),
        (0, 0, 0)
    );
    assert_known(&known, &*one.catalog).await;

    one.catalog
        .remove_key(ApiKeyHash([1; 32]))
        .await
        .expect("a key can be withdrawn");
    one.catalog
        .remove_pipeline(second.id)
        .await
        .expect("a pipeline can be removed");
    one.catalog
        .remove_application(&name("acme"), &name("photos"))
        .await
        .expect("an empty application can be removed");
    let changes = known.follow(&*other.cluster).await;
    for removed in [
        Removed::Key(ApiKeyHash([1; 32])),
        Removed::Pipeline(second.id),
        Removed::Application(name("acme"), name("photos")),
    ] {
        assert!(changes.removed.contains(&removed), "{removed:?} in {changes:?}");
    }
    assert_known(&known, &*one.catalog).await;

    let nothing = known.follow(&*other.cluster).await;
    let expected = CatalogChanges {
        version: known.version,
        ..CatalogChanges::default()
    };
    assert_eq!(nothing, expected);
}

/// What comes back after its removal is listed, and no longer as removed.
pub async fn what_is_removed_and_added_again_is_there(world: &mut dyn ClusterWorld) {
    let stores = world.open().await;
    add_acme(&*stores.catalog).await;
    let mut known = Known::default();
    known.follow(&*stores.cluster).await;
    stores
        .catalog
        .remove_application(&name("acme"), &name("docs"))
        .await
        .expect("an empty application can be removed");
    stores
        .catalog
        .add_application(application("acme", "docs"))
        .await
        .expect("an application can be added");
    let changes = known.follow(&*stores.cluster).await;
    assert_eq!(changes.removed, []);
    assert_eq!(changes.applications, [application("acme", "docs")]);
    assert_known(&known, &*stores.catalog).await;
}

/// A node that knows more than the store (which was restored from a backup, say) begins anew.
pub async fn a_version_from_the_future_gets_everything(world: &mut dyn ClusterWorld) {
    let stores = world.open().await;
    add_acme(&*stores.catalog).await;
    let mut known = Known {
        version: CatalogVersion(1_000_000),
        ..Known::default()
    };
    assert!(known.follow(&*stores.cluster).await.whole);
    assert_known(&known, &*stores.catalog).await;
}

/// Of writes at the same time none is missed by who follows meanwhile.
pub async fn writers_at_once_are_all_heard(world: &mut dyn ClusterWorld) {
    const EACH: u8 = 8;
    let (one, other, reader) = (world.open().await, world.open().await, world.open().await);
    add_acme(&*one.catalog).await;
    let write = async |catalog: &dyn Catalog, first: u8| {
        for byte in first..first + EACH {
            let added = catalog.add_key(key(byte, "acme")).await;
            added.expect("a key can be added");
        }
    };
    let mut known = Known::default();
    let follow = async {
        while known.catalog.keys.len() < usize::from(EACH) * 2 {
            known.follow(&*reader.cluster).await;
            tokio::task::yield_now().await;
        }
    };
    let all = async {
        tokio::join!(write(&*one.catalog, 0), write(&*other.catalog, 100), follow);
    };
    tokio::time::timeout(Duration::from_mins(1), all)
        .await
        .expect("every key is heard of");
    assert_known(&known, &*one.catalog).await;
}
