//! Placement by a consumer group, on a real Kafka, in both protocols.

#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]

mod common;

use std::collections::BTreeSet;

use common::Cluster;
use scheduler_core::id::ShardId;
use scheduler_core::port::log::{TaskLog, Topic};
use scheduler_core::port::placement::{Placement, PlacementEvent};
use scheduler_kafka::{GroupProtocol, KafkaConfig, KafkaLog, KafkaPlacement};
use scheduler_testkit::contract::{shard, topic};

/// A node: its membership, and the shards it has.
struct Node {
    placement: KafkaPlacement,
    has: BTreeSet<ShardId>,
}

impl Node {
    async fn new(config: KafkaConfig, topics: &[Topic]) -> Self {
        let placement = KafkaPlacement::open(config).unwrap();
        placement.set_topics(topics.to_vec()).await.unwrap();
        let has = BTreeSet::new();
        Self { placement, has }
    }

    /// Takes one event; what is revoked is released at once.
    async fn step(&mut self) {
        match self.placement.next().await.unwrap() {
            PlacementEvent::Assigned(shards) => {
                for shard in shards {
                    assert!(self.has.insert(shard), "{shard} was assigned twice");
                }
            }
            PlacementEvent::Revoked(shards) => {
                for shard in &shards {
                    assert!(self.has.remove(shard), "{shard} was revoked and not ours");
                }
                self.placement.released(&shards).await.unwrap();
            }
            PlacementEvent::Lost(shards) => {
                for shard in &shards {
                    assert!(self.has.remove(shard), "{shard} was lost and not ours");
                }
            }
        }
    }

    async fn until(&mut self, count: usize) {
        while self.has.len() != count {
            self.step().await;
        }
    }
}

async fn made(cluster: &Cluster, topics: &[Topic]) -> KafkaLog {
    let log = KafkaLog::open(cluster.config()).await.unwrap();
    for topic in topics {
        log.ensure(topic).await.unwrap();
    }
    log
}

fn config(cluster: &Cluster, protocol: GroupProtocol) -> KafkaConfig {
    let mut config = cluster.config();
    config.group_protocol = protocol;
    config
}

async fn members_share_and_never_both_have_a_shard(protocol: GroupProtocol) {
    let cluster = Cluster::new();
    let topics = [topic(1, 4), topic(2, 4)];
    let log = made(&cluster, &topics).await;

    let mut one = Node::new(config(&cluster, protocol), &topics).await;
    one.until(8).await;

    let mut other = Node::new(config(&cluster, protocol), &topics).await;
    while one.has.len() + other.has.len() != 8 || other.has.is_empty() {
        tokio::select! {
            () = one.step() => {}
            () = other.step() => {}
        }
        assert!(one.has.is_disjoint(&other.has), "a shard is on two nodes");
    }

    // The partitions of what is made later come too, and so do those that are added.
    log.ensure(&topic(1, 6)).await.unwrap();
    log.ensure(&topic(3, 2)).await.unwrap();
    let topics = vec![topic(1, 6), topic(2, 4), topic(3, 2)];
    one.placement.set_topics(topics.clone()).await.unwrap();
    other.placement.set_topics(topics).await.unwrap();
    while one.has.len() + other.has.len() != 12 {
        tokio::select! {
            () = one.step() => {}
            () = other.step() => {}
        }
        assert!(one.has.is_disjoint(&other.has), "a shard is on two nodes");
    }

    other.placement.leave().await;
    one.until(12).await;
}

#[tokio::test]
async fn members_share_in_the_consumer_protocol() {
    members_share_and_never_both_have_a_shard(GroupProtocol::Consumer).await;
}

#[tokio::test]
async fn members_share_in_the_classic_protocol() {
    members_share_and_never_both_have_a_shard(GroupProtocol::Classic).await;
}

async fn what_is_revoked_stays_until_it_is_released(protocol: GroupProtocol) {
    let cluster = Cluster::new();
    let topics = [topic(1, 4)];
    let _log = made(&cluster, &topics).await;
    let mut one = Node::new(config(&cluster, protocol), &topics).await;
    one.until(4).await;

    let mut other = Node::new(config(&cluster, protocol), &topics).await;
    let PlacementEvent::Revoked(mut shards) = one.placement.next().await.unwrap() else {
        panic!("the first node is asked to give some")
    };
    let last = shards.pop().unwrap();
    one.placement.released(&shards).await.unwrap();
    // Not all of them are released: none goes over.
    tokio::select! {
        biased;
        () = other.step() => panic!("the other node has {:?}", other.has),
        // Any answer of the group's first member shows that it is served meanwhile.
        result = one.placement.set_topics(topics.to_vec()) => result.unwrap(),
    }
    one.placement.released(&[last]).await.unwrap();
    other.until(shards.len() + 1).await;
    assert!(other.has.contains(&last));
}

#[tokio::test]
async fn the_consumer_protocol_waits_for_the_release() {
    what_is_revoked_stays_until_it_is_released(GroupProtocol::Consumer).await;
}

#[tokio::test]
async fn the_classic_protocol_waits_for_the_release() {
    what_is_revoked_stays_until_it_is_released(GroupProtocol::Classic).await;
}

#[tokio::test]
async fn partitions_of_a_topic_that_is_no_longer_named_are_revoked() {
    let cluster = Cluster::new();
    let topics = [topic(1, 2), topic(2, 2)];
    let _log = made(&cluster, &topics).await;
    let mut node = Node::new(cluster.config(), &topics).await;
    node.until(4).await;
    node.placement.set_topics(vec![topic(2, 2)]).await.unwrap();
    node.until(2).await;
    assert!(node.has.contains(&shard(2, 0)) && node.has.contains(&shard(2, 1)));
    node.placement.set_topics(Vec::new()).await.unwrap();
    node.until(0).await;
}
