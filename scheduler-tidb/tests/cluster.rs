//! Several nodes over one TiDB: they start together, race, and lose their connections in the middle of a save.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{Attempt, CheckpointId, NodeId, Offset, Partition, PipelineId, ShardId, Tenure};
use scheduler_core::outcome::{Ending, FinishedTask};
use scheduler_core::port::store::{Archive, CheckpointStore, Saved, StoreError};
use scheduler_core::time::Timestamp;
use scheduler_tidb::{ConnectError, TidbConfig, TidbStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use self::common::Scratch;

const SHARD: ShardId = ShardId::new(PipelineId(1), Partition(0));

async fn tenure(store: &TidbStore, shard: ShardId, node: u128) -> Tenure {
    let claimed = store.claim(shard, NodeId(node)).await.expect("a claim succeeds");
    Tenure {
        shard,
        epoch: claimed.epoch,
    }
}

fn checkpoint(tenure: Tenure, id: u64, state: impl Into<Bytes>) -> Checkpoint {
    let now = Timestamp::from_millis(id);
    Checkpoint {
        state: state.into(),
        finished: vec![FinishedTask {
            offset: Offset(id),
            ending: Ending::Succeeded,
            attempts: Attempt(1),
            submitted_at: now,
            started_at: now,
            finished_at: now,
            output: "42".into(),
        }],
        ..Checkpoint::empty(tenure, CheckpointId(id), now, Offset(id))
    }
}

#[tokio::test]
async fn nodes_that_start_together_make_the_tables_once() {
    let scratch = Scratch::new().await;
    let (one, two, three) = tokio::join!(scratch.connect(), scratch.connect(), scratch.connect());
    tenure(&one, SHARD, 1).await;
    tenure(&two, SHARD, 2).await;
    assert_eq!(tenure(&three, SHARD, 3).await.epoch.0, 3);
}

#[tokio::test]
async fn of_two_owners_that_race_only_the_newer_saves() {
    let scratch = Scratch::new().await;
    let (one, other) = (scratch.connect().await, scratch.connect().await);
    for round in 1..=10 {
        let old = tenure(&one, SHARD, 1).await;
        let (late, claimed) = (checkpoint(old, round * 2, "old"), other.claim(SHARD, NodeId(2)));
        let late = [&late];
        let (saved, claimed) = tokio::join!(one.save(&late), claimed);
        let (saved, claimed) = (saved.expect("a save answers"), claimed.expect("a claim succeeds"));
        // Whichever was first, what the new owner found is what the old one was told.
        let found = claimed.resume == Offset(round * 2);
        assert_eq!(saved == [Saved::Done], found, "{saved:?} and {claimed:?}");
        let new = Tenure {
            shard: SHARD,
            epoch: claimed.epoch,
        };
        let newer = checkpoint(new, round * 2 + 1, "new");
        assert_eq!(
            other.save(&[&newer]).await.expect("a save answers"),
            [Saved::Done]
        );
        let fenced = one.save(&late).await.expect("fencing is an answer");
        assert_eq!(fenced, [Saved::Fenced { stored: new.epoch }]);
    }
}

#[tokio::test]
async fn a_large_state_comes_back_whole_and_shrinks_again() {
    let scratch = Scratch::new().await;
    let store = scratch.connect().await;
    // Bytes that do not compress, in several pieces.
    let large: Vec<u8> = (0u32..400_000)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
        .collect();
    for state in [Bytes::from(large), Bytes::from("small"), Bytes::new()] {
        let tenure = tenure(&store, SHARD, 1).await;
        let saved = store.save(&[&checkpoint(tenure, 1, state.clone())]).await;
        assert_eq!(saved.expect("a save answers"), [Saved::Done]);
        let claimed = store.claim(SHARD, NodeId(2)).await.expect("a claim succeeds");
        assert!(
            claimed.state == state,
            "{} bytes of {}",
            claimed.state.len(),
            state.len()
        );
    }
}

#[tokio::test]
async fn a_save_that_lost_its_connection_can_be_said_again() {
    let scratch = Scratch::new().await;
    let direct = scratch.connect().await;
    let server = scratch.url();
    let address = server
        .split_once('@')
        .and_then(|(_, rest)| rest.split_once('/'))
        .map(|(address, _)| address.to_owned())
        .expect("a URL with user and database");
    let proxy = Proxy::start(address.clone()).await;
    // The proxy looks for a word in what passes, so that has to be plain.
    let url = format!("{}?ssl-mode=DISABLED", server.replace(&address, &proxy.address));
    let store = TidbStore::connect(&url, Scratch::config())
        .await
        .expect("TiDB answers through the proxy");
    let tenure = tenure(&store, SHARD, 1).await;
    for id in 1..=5 {
        let next = checkpoint(tenure, id, "state");
        proxy.cut_at_commit.store(true, Ordering::SeqCst);
        let lost = store.save(&[&next]).await;
        assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
        assert!(
            !proxy.cut_at_commit.load(Ordering::SeqCst),
            "the proxy has seen the commit"
        );
        assert_eq!(store.save(&[&next]).await.expect("a save answers"), [Saved::Done]);
        let results = direct
            .results(SHARD, Offset(u64::MAX), 100)
            .await
            .expect("a list");
        assert_eq!(results.len() as u64, id);
    }
}

/// Passes bytes on, and when told so cuts a connection after it has passed a `COMMIT` on.
struct Proxy {
    address: String,
    cut_at_commit: Arc<AtomicBool>,
}

impl Proxy {
    async fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it has an address").to_string();
        let cut_at_commit = Arc::new(AtomicBool::new(false));
        let cut = cut_at_commit.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&to).await.expect("TiDB runs");
                tokio::spawn(pass(client, server, cut.clone()));
            }
        });
        Self {
            address,
            cut_at_commit,
        }
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, cut: Arc<AtomicBool>) {
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(len @ 1..) = read else { return };
                if server.write_all(&asked[..len]).await.is_err() {
                    return;
                }
                let commits = asked[..len].windows(6).any(|bytes| bytes == b"COMMIT");
                if commits && cut.swap(false, Ordering::SeqCst) {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(len @ 1..) = read else { return };
                if client.write_all(&answered[..len]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_url_is_said_without_its_password() {
    let scratch = Scratch::new().await;
    let url = scratch.url();
    let missing = TidbStore::connect(&format!("{url}_missing"), TidbConfig::default()).await;
    assert!(
        matches!(missing, Err(ConnectError::NoDatabase { .. })),
        "{missing:?}"
    );
    let denied = url.replace("root@", "nobody:secret@");
    let denied = TidbStore::connect(&denied, TidbConfig::default())
        .await
        .expect_err("there is no such user");
    assert!(matches!(denied, ConnectError::Denied { .. }), "{denied:?}");
    assert!(!format!("{denied:?} {denied}").contains("secret"));
    let nobody = TidbStore::connect("mysql://u:secret@127.0.0.1:1/db", TidbConfig::default())
        .await
        .expect_err("nobody listens there");
    assert!(matches!(nobody, ConnectError::Unreachable { .. }), "{nobody:?}");
    assert!(!format!("{nobody:?} {nobody}").contains("secret"));
}
