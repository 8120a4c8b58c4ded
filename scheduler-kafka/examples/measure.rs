//! Figures of the Kafka adapters: `measure <bootstrap> append|topics|backlog`.
//!
//! `append` writes and reads 128-byte tasks of one pipeline; `topics` makes 1,000 topics of 4 partitions, joins the group, opens a reader
//! for each partition, and shows memory and the processor time of 30 idle seconds; `backlog` opens 2,000 readers, each with 256 KiB before it of
//! which it takes one record, and shows the memory with all that librdkafka has fetched ahead. Everything made is deleted at the end.

#![expect(clippy::print_stdout, reason = "it is a program that prints figures")]

use std::error::Error;
use std::time::{Duration, Instant};

use futures::StreamExt;
use scheduler_core::id::{Offset, Partition, PipelineId, ShardId};
use scheduler_core::name::PipelinePath;
use scheduler_core::port::log::{ReadLimit, TaskLog, Topic};
use scheduler_core::port::placement::{Placement, PlacementEvent};
use scheduler_core::task::TaskSpec;
use scheduler_kafka::{KafkaConfig, KafkaLog, KafkaPlacement};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: measure <bootstrap> append|topics|backlog";
    let (bootstrap, what) = (args.next().ok_or(usage)?, args.next().ok_or(usage)?);
    let mut config = KafkaConfig::new(bootstrap, format!("measure-{:08x}", fastrand::u32(..)));
    config.replication = 1;
    match what.as_str() {
        "append" => append(config).await,
        "topics" => topics(config).await,
        "backlog" => backlog(config).await,
        _ => Err(usage.into()),
    }
}

fn topic(number: u32, partitions: u32) -> Result<Topic> {
    let path = PipelinePath {
        client: "default".parse()?,
        application: "measure".parse()?,
        pipeline: "p".parse()?,
    };
    Ok(Topic {
        pipeline: PipelineId(number),
        path,
        partitions,
        settings: scheduler_core::port::log::TopicSettings::default(),
    })
}

const BATCH: usize = 100;
const APPENDS: usize = 10_000;

async fn append(config: KafkaConfig) -> Result<()> {
    let log = KafkaLog::open(config).await?;
    log.ensure(&topic(1, 4)?).await?;
    let shard = |at: usize| ShardId::new(PipelineId(1), Partition(u32::try_from(at % 4).unwrap_or(0)));
    let task = TaskSpec::new(vec![b'x'; 128]);

    let (begun, used) = (Instant::now(), processor()?);
    let mut running = futures::stream::iter(0..APPENDS)
        .map(|at| log.append(shard(at), vec![task.clone(); BATCH]))
        .buffer_unordered(64);
    while let Some(offsets) = running.next().await {
        offsets?;
    }
    drop(running);
    show(
        "appended, 64 appends of 100 at once",
        begun,
        processor()?.saturating_sub(used),
    );

    let (begun, used) = (Instant::now(), processor()?);
    let mut left = APPENDS * BATCH;
    for partition in 0..4 {
        let mut reader = log.read(shard(partition), Offset::ZERO).await?;
        let end = usize::try_from(log.bounds(shard(partition)).await?.end.0)?;
        let (mut records, mut taken) = (Vec::with_capacity(1_000), 0);
        while taken < end {
            let limit = ReadLimit {
                records: 1_000,
                bytes: 1 << 20,
            };
            reader.next(limit, &mut records).await?;
            taken += records.len();
            records.clear();
        }
        left -= taken;
    }
    show(
        "read, one partition after the other",
        begun,
        processor()?.saturating_sub(used),
    );
    println!("{left} missing");

    let mut waits = Vec::new();
    for at in 0..1_000 {
        let begun = Instant::now();
        log.append(shard(at), vec![task.clone()]).await?;
        waits.push(begun.elapsed());
    }
    waits.sort_unstable();
    println!("one append alone: p50 {:?}, p99 {:?}", waits[500], waits[990]);
    log.delete(PipelineId(1)).await?;
    Ok(())
}

fn show(what: &str, begun: Instant, used: Duration) {
    let (took, millions) = (begun.elapsed().as_secs_f64(), 1.0);
    println!(
        "{what}: {:.2} million/s, {:.2} s of processor per million",
        millions / took,
        used.as_secs_f64()
    );
}

const TOPICS: u32 = 1_000;

async fn topics(config: KafkaConfig) -> Result<()> {
    let log = KafkaLog::open(config.clone()).await?;
    let topics = (1..=TOPICS)
        .map(|number| topic(number, 4))
        .collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    let mut running = futures::stream::iter(&topics)
        .map(|topic| log.ensure(topic))
        .buffer_unordered(16);
    while let Some(made) = running.next().await {
        made?;
    }
    drop(running);
    println!(
        "{TOPICS} topics made in {:?}; {} MB",
        begun.elapsed(),
        resident()?
    );

    let begun = Instant::now();
    let placement = KafkaPlacement::open(config)?;
    placement.set_topics(topics).await?;
    let mut shards = Vec::new();
    while shards.len() < 4 * TOPICS as usize {
        if let PlacementEvent::Assigned(more) = placement.next().await? {
            shards.extend(more);
        }
    }
    println!(
        "{} shards assigned in {:?}; {} MB",
        shards.len(),
        begun.elapsed(),
        resident()?
    );

    let begun = Instant::now();
    let mut readers = Vec::new();
    let mut running = futures::stream::iter(shards)
        .map(|shard| log.read(shard, Offset::ZERO))
        .buffer_unordered(16);
    while let Some(reader) = running.next().await {
        readers.push(reader?);
        if readers.len() == 2_000 {
            println!("2000 readers in {:?}; {} MB", begun.elapsed(), resident()?);
        }
    }
    drop(running);
    println!(
        "{} readers in {:?}; {} MB",
        readers.len(),
        begun.elapsed(),
        resident()?
    );

    let used = processor()?;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let share = processor()?.saturating_sub(used).as_secs_f64() / 30.0 * 100.0;
    println!("idle: {share:.1} % of a core; {} MB", resident()?);

    drop(readers);
    placement.leave().await;
    let mut running = futures::stream::iter(1..=TOPICS)
        .map(|number| log.delete(PipelineId(number)))
        .buffer_unordered(16);
    while let Some(deleted) = running.next().await {
        deleted?;
    }
    Ok(())
}

/// Tasks that wait in each partition, and bytes of each.
const WAITING: (usize, usize) = (32, 8 << 10);

async fn backlog(config: KafkaConfig) -> Result<()> {
    let log = KafkaLog::open(config).await?;
    let topics = 500;
    let shards: Vec<ShardId> = (1..=topics)
        .flat_map(|number| {
            (0..4).map(move |partition| ShardId::new(PipelineId(number), Partition(partition)))
        })
        .collect();
    for number in 1..=topics {
        log.ensure(&topic(number, 4)?).await?;
    }
    let fill = |shard: ShardId| {
        let log = &log;
        async move {
            // As params that do not compress.
            let task = || TaskSpec::new((0..WAITING.1).map(|_| fastrand::u8(..)).collect::<Vec<u8>>());
            log.append(shard, (0..WAITING.0).map(|_| task()).collect()).await
        }
    };
    let mut running = futures::stream::iter(shards.iter().copied())
        .map(fill)
        .buffer_unordered(16);
    while let Some(filled) = running.next().await {
        filled?;
    }
    drop(running);
    println!(
        "{} partitions with {} KiB each; {} MB",
        shards.len(),
        (WAITING.0 * WAITING.1) >> 10,
        resident()?
    );

    let mut readers = Vec::new();
    for shard in &shards {
        readers.push(log.read(*shard, Offset::ZERO).await?);
    }
    let one = ReadLimit { records: 1, bytes: 1 };
    for reader in &mut readers {
        reader.next(one, &mut Vec::new()).await?;
    }
    let (mut most, mut still) = (resident()?, 0);
    while still < 10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = resident()?;
        still = if now > most { 0 } else { still + 1 };
        most = most.max(now);
    }
    println!(
        "a record of each taken, {} readers stand still: {most} MB",
        readers.len()
    );
    drop(readers);
    for number in 1..=topics {
        log.delete(PipelineId(number)).await?;
    }
    Ok(())
}

/// Megabytes that are resident.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: u64 = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("no VmRSS")?
        .parse()?;
    Ok(kilobytes >> 10)
}

/// Processor time of this process, in steps of 10 ms.
fn processor() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit(')').next().ok_or("no stat")?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |at: usize| -> Result<u64> { Ok(fields.get(at).ok_or("no times")?.parse()?) };
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}
