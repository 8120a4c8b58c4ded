//! Resource: a TiDB and a connection to it. What a checkpoint costs there: the time of a save, and for a million tasks the bytes on the wire, the
//! rows and what TiDB says that its transactions wrote.
//!
//! `SCHEDULER_TEST_TIDB` leads to a server, as `cargo xtask services up` prints it; the database is made, and dropped in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use scheduler_benches::{BATCH, Harness, figure};
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{NodeId, Partition, PipelineId, ShardId, Tenure};
use scheduler_core::policy::{CheckpointPolicy, PipelinePolicy};
use scheduler_core::port::store::CheckpointStore as _;
use scheduler_core::task::{TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;
use scheduler_tidb::{TidbConfig, TidbStore};
use sqlx::{Connection as _, MySqlConnection, Row as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use url::Url;

const TIDB: &str = "SCHEDULER_TEST_TIDB";
/// Batches of tasks that end between two checkpoints: a little less than a shard waits for by default.
const BATCHES: u32 = 500;
/// The same of tasks with keys, each of which is a row.
const BATCHES_WITH_KEYS: u32 = 50;
/// Tasks that are leased meanwhile.
const LEASED: u32 = 4_000;
/// Checkpoints that are counted.
const COUNTED: u32 = 32;
const SHARDS: u32 = 1_000;

/// A task with nothing said of it, or with a key of its own.
type Task = fn(u64, Timestamp, Bytes) -> TaskSpec;

fn plain(_: u64, _: Timestamp, params: Bytes) -> TaskSpec {
    TaskSpec::new(params)
}

fn keyed(number: u64, _: Timestamp, params: Bytes) -> TaskSpec {
    let options = TaskOptions {
        idempotency_key: Some(Bytes::copy_from_slice(&number.to_be_bytes())),
        ..TaskOptions::default()
    };
    TaskSpec {
        options: Some(Box::new(options)),
        ..TaskSpec::new(params)
    }
}

/// A shard at work, of which the store gets the checkpoints.
struct Work {
    harness: Harness,
    shard: ShardId,
    task: Task,
    batches: u32,
}

impl Work {
    fn new(runtime: &Runtime, store: &TidbStore, partition: u32, task: Task, batches: u32) -> Self {
        let shard = ShardId::new(PipelineId(1), Partition(partition));
        let claimed = runtime.block_on(store.claim(shard, NodeId(1)));
        claimed.expect("a claim succeeds");
        // Only when it is asked for one, so that none is missed.
        let checkpoint = CheckpointPolicy {
            interval: Duration::from_hours(1),
            max_ended: u32::MAX,
        };
        let policy = PipelinePolicy {
            checkpoint,
            ..PipelinePolicy::default()
        };
        let mut harness = Harness::empty(LEASED + BATCH, policy);
        harness.arrive_as(LEASED, task);
        Self {
            harness,
            shard,
            task,
            batches,
        }
    }

    fn tasks(&self) -> u32 {
        self.batches * BATCH
    }

    fn next(&mut self) -> Checkpoint {
        for _ in 0..self.batches {
            self.harness.arrive_as(BATCH, self.task);
            self.harness.lease(BATCH);
            self.harness.report();
            self.harness.pass();
        }
        let checkpoint = self.harness.keep();
        let tenure = Tenure {
            shard: self.shard,
            ..checkpoint.tenure
        };
        Checkpoint {
            tenure,
            ..Checkpoint::clone(&checkpoint)
        }
    }
}

/// A database of this benchmark alone, behind something that counts bytes.
struct Database {
    /// Past what counts.
    direct: Url,
    name: String,
    sent: Arc<AtomicU64>,
    store: TidbStore,
}

impl Database {
    async fn make() -> Self {
        let server = std::env::var(TIDB).unwrap_or_else(|_| {
            panic!("{TIDB} is not set: `cargo xtask services up` starts a TiDB and prints it")
        });
        let mut direct = Url::parse(&server).expect("the address of TiDB is a URL");
        let name = format!("bench_{}", std::process::id());
        direct.set_path("/test");
        let mut connection = MySqlConnection::connect(direct.as_str())
            .await
            .expect("TiDB answers");
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .expect("a database can be made");
        let sent = Arc::new(AtomicU64::new(0));
        let mut counted = direct.clone();
        let port = count(&direct, Arc::clone(&sent)).await;
        counted.set_host(Some("127.0.0.1")).expect("it has a host");
        counted.set_port(Some(port)).expect("it has a port");
        counted.set_path(&name);
        let store = TidbStore::connect(counted.as_str(), TidbConfig::default())
            .await
            .expect("the tables can be made");
        Self {
            direct,
            name,
            sent,
            store,
        }
    }

    async fn connection(&self) -> MySqlConnection {
        let mut url = self.direct.clone();
        url.set_path(&self.name);
        MySqlConnection::connect(url.as_str())
            .await
            .expect("TiDB answers")
    }

    /// Keys and bytes that TiDB's transactions have written so far, as it says.
    async fn written(&self) -> (f64, f64) {
        let sum = "SELECT CAST(COALESCE(SUM(EXEC_COUNT * AVG_WRITE_KEYS), 0) AS DOUBLE), \
                   CAST(COALESCE(SUM(EXEC_COUNT * AVG_WRITE_SIZE), 0) AS DOUBLE) \
                   FROM information_schema.statements_summary WHERE STMT_TYPE = 'Commit'";
        let row = sqlx::query(sum)
            .fetch_one(&mut self.connection().await)
            .await
            .expect("TiDB keeps a summary of statements");
        (row.get(0), row.get(1))
    }

    async fn table(&self, rows: &str) -> f64 {
        let sum = format!("SELECT CAST(COALESCE({rows}, 0) AS DOUBLE) FROM result_segment");
        let row = sqlx::query(sqlx::AssertSqlSafe(sum))
            .fetch_one(&mut self.connection().await)
            .await
            .expect("the table is there");
        row.get(0)
    }

    async fn drop(self) {
        let mut connection = self.connection().await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("DROP DATABASE {}", self.name)))
            .execute(&mut connection)
            .await
            .expect("what was made can be dropped");
    }
}

/// Listens, passes on to TiDB, and counts what it is sent.
async fn count(to: &Url, sent: Arc<AtomicU64>) -> u16 {
    let address = format!(
        "{}:{}",
        to.host_str().unwrap_or("127.0.0.1"),
        to.port().unwrap_or(4000)
    );
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&address).await.expect("TiDB answers");
            for stream in [&client, &server] {
                stream.set_nodelay(true).expect("a socket has this option");
            }
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(pass_on(from_client, to_server, Arc::clone(&sent)));
            tokio::spawn(pass_on(from_server, to_client, Arc::default()));
        }
    });
    port
}

async fn pass_on(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, counter: Arc<AtomicU64>) {
    let mut buffer = vec![0; 256 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        counter.fetch_add(read as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn save(database: &Database, checkpoints: &[&Checkpoint]) {
    let saved = database.store.save(checkpoints).await.expect("a save succeeds");
    assert_eq!(saved.len(), checkpoints.len());
}

/// What a million tasks leave, besides time.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn counts(runtime: &Runtime, database: &Database, name: &str, work: &mut Work) {
    let checkpoints: Vec<Checkpoint> = (0..COUNTED).map(|_| work.next()).collect();
    let millions = f64::from(COUNTED * work.tasks()) / 1e6;
    runtime.block_on(async {
        let state = |database: &Database| database.sent.load(Ordering::Relaxed) as f64;
        let (wire, keys_bytes) = (state(database), database.written().await);
        let (rows, bytes) = (
            database.table("COUNT(*)").await,
            database.table("SUM(LENGTH(body))").await,
        );
        for checkpoint in &checkpoints {
            save(database, &[checkpoint]).await;
        }
        let wire = state(database) - wire;
        let written = database.written().await;
        let per_million = |what: &str, value: f64, unit: &str| {
            figure(
                &format!("tidb, a million tasks, {name}: {what}"),
                format!("{:.1}", value / millions),
                unit,
            );
        };
        per_million("sent to it", wire / 1e6, "MB");
        per_million("rows of results", database.table("COUNT(*)").await - rows, "rows");
        per_million(
            "results, packed",
            (database.table("SUM(LENGTH(body))").await - bytes) / 1e6,
            "MB",
        );
        per_million(
            "keys of transactions, as it says",
            written.0 - keys_bytes.0,
            "keys",
        );
        per_million(
            "bytes of transactions, as it says",
            (written.1 - keys_bytes.1) / 1e6,
            "MB",
        );
    });
}

fn checkpoints(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime starts");
    let database = runtime.block_on(Database::make());
    let mut group = criterion.benchmark_group("tidb_checkpoint");
    let kinds: [(&str, Task, u32); 2] = [("plain", plain, BATCHES), ("with keys", keyed, BATCHES_WITH_KEYS)];
    for (partition, (name, task, batches)) in (0..).zip(kinds) {
        let mut work = Work::new(&runtime, &database.store, partition, task, batches);
        counts(&runtime, &database, name, &mut work);
        group.throughput(Throughput::Elements(work.tasks().into()));
        group.bench_function(BenchmarkId::new(name, work.tasks()), |bencher| {
            bencher.iter_custom(|iters| {
                (0..iters)
                    .map(|_| {
                        let checkpoint = work.next();
                        let begin = Instant::now();
                        runtime.block_on(save(&database, &[&checkpoint]));
                        begin.elapsed()
                    })
                    .sum()
            });
        });
    }

    // What a node saves of many pipelines at little work, together.
    let mut many = Work::new(&runtime, &database.store, 2, plain, 1).next();
    many.finished.truncate(10);
    let mut all: Vec<Checkpoint> = (0..SHARDS)
        .map(|partition| Checkpoint {
            tenure: Tenure {
                shard: ShardId::new(PipelineId(2), Partition(partition)),
                ..many.tenure
            },
            ..many.clone()
        })
        .collect();
    runtime.block_on(async {
        for checkpoint in &all {
            let claimed = database.store.claim(checkpoint.tenure.shard, NodeId(1)).await;
            claimed.expect("a claim succeeds");
        }
    });
    group.throughput(Throughput::Elements(SHARDS.into()));
    group.bench_function(BenchmarkId::new("shards together", SHARDS), |bencher| {
        bencher.iter_custom(|iters| {
            (0..iters)
                .map(|_| {
                    for checkpoint in &mut all {
                        checkpoint.id = checkpoint.id.next();
                    }
                    let together: Vec<&Checkpoint> = all.iter().collect();
                    let begin = Instant::now();
                    runtime.block_on(save(&database, &together));
                    begin.elapsed()
                })
                .sum()
        });
    });
    group.finish();
    runtime.block_on(database.drop());
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(10);
    targets = checkpoints
}
criterion_main!(benches);
