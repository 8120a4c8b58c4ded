//! Figures of the store on a TiDB: `cargo run -p scheduler-tidb --example figures -- mysql://root@127.0.0.1:4000/an_empty_database`.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]
#![expect(clippy::cast_precision_loss, reason = "figures are rounded")]

use std::error::Error;
use std::time::Instant;

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{Attempt, CheckpointId, NodeId, Offset, Partition, PipelineId, ShardId, Tenure};
use scheduler_core::outcome::{Ending, FinishedTask};
use scheduler_core::port::store::{Archive, CheckpointStore};
use scheduler_core::time::Timestamp;
use scheduler_tidb::{TidbConfig, TidbStore};
use sqlx::{Connection, MySqlConnection};

const SHARDS: u32 = 1000;
const STATE_BYTES: usize = 1024;
const TASKS: u64 = 200_000;
const BATCH: u64 = 20_000;
const LOOKUPS: u64 = 500;

fn finished(offset: u64) -> FinishedTask {
    let at = |after: u64| Timestamp::from_millis(1_700_000_000_000 + offset * 3 + after);
    FinishedTask {
        offset: Offset(offset),
        ending: Ending::Succeeded,
        attempts: Attempt(1),
        submitted_at: at(0),
        started_at: at(40 + offset % 17),
        finished_at: at(900 + offset % 251),
        output: format!(
            "{{\"0:download\":\"file-{offset}.pdf\",\"1:ocr\":{}}}",
            offset % 97
        )
        .into(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args()
        .nth(1)
        .ok_or("give the URL of an empty database")?;
    let store = TidbStore::connect(&url, TidbConfig::default()).await?;

    let mut checkpoints = Vec::new();
    for partition in 0..SHARDS {
        let shard = ShardId::new(PipelineId(1), Partition(partition));
        let epoch = store.claim(shard, NodeId(1)).await?.epoch;
        let tenure = Tenure { shard, epoch };
        let state = (0..STATE_BYTES).map(|_| fastrand::u8(..)).collect::<Vec<u8>>();
        checkpoints.push(Checkpoint {
            state: state.into(),
            finished: vec![finished(0)],
            ..Checkpoint::empty(tenure, CheckpointId(1), Timestamp::ZERO, Offset::ZERO)
        });
    }
    for id in 1..=5 {
        for checkpoint in &mut checkpoints {
            checkpoint.id = CheckpointId(id);
        }
        let began = Instant::now();
        store.save(&checkpoints.iter().collect::<Vec<_>>()).await?;
        println!(
            "{SHARDS} shards, {STATE_BYTES} bytes of state and a result each, in one transaction: {:?}",
            began.elapsed()
        );
    }

    let shard = ShardId::new(PipelineId(2), Partition(0));
    let epoch = store.claim(shard, NodeId(1)).await?.epoch;
    let began = Instant::now();
    for (id, from) in (1..).zip((0..TASKS).step_by(usize::try_from(BATCH)?)) {
        let next = Checkpoint {
            finished: (from..from + BATCH).map(finished).collect(),
            ..Checkpoint::empty(
                Tenure { shard, epoch },
                CheckpointId(id),
                Timestamp::ZERO,
                Offset(from),
            )
        };
        store.save(&[&next]).await?;
    }
    let rate = TASKS as f64 / began.elapsed().as_secs_f64();
    let mut connection = MySqlConnection::connect(&url).await?;
    let (rows, bytes): (i64, u64) = sqlx::query_as(
        "SELECT COUNT(*), CAST(SUM(LENGTH(body)) AS UNSIGNED) FROM result_segment WHERE pipeline = 2",
    )
    .fetch_one(&mut connection)
    .await?;
    println!(
        "packed results: {rate:.0} tasks/s in checkpoints of {BATCH}, {rows} rows, {:.1} MB per million tasks",
        bytes as f64 / TASKS as f64
    );

    let began = Instant::now();
    for _ in 0..LOOKUPS {
        let offset = Offset(fastrand::u64(..TASKS));
        let found = store.result(shard.task(offset)).await?;
        found.ok_or("a result that was saved is found")?;
    }
    println!("a look by id: {:?}", began.elapsed() / u32::try_from(LOOKUPS)?);
    Ok(())
}
