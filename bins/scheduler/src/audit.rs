//! `scheduler audit`: asks a running system whether every offset of every log is accounted for.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// How long a node may take to answer: it counts what is parked in the store.
const ANSWER: Duration = Duration::from_mins(2);
/// Between two looks at what did not add up.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Nodes, by their HTTP address: `http://host:8080`. Each audits the partitions that live on it, so name all of a cluster.
    #[arg(required = true, value_name = "URL")]
    nodes: Vec<Url>,

    /// Only pipelines of this application.
    #[arg(long)]
    application: Option<String>,

    /// Only this pipeline.
    #[arg(long, requires = "application")]
    pipeline: Option<String>,

    /// The API key of the client whose pipelines are audited.
    #[arg(long, env = "SCHEDULER_API_KEY", hide_env_values = true)]
    api_key: Option<String>,

    /// So many seconds a partition may take that moves, comes up, or is too busy to be counted.
    #[arg(long, default_value_t = 30)]
    patience: u64,
}

#[derive(Debug, Deserialize)]
struct Items<T> {
    items: Vec<T>,
}

#[derive(Debug, Deserialize)]
struct Application {
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Pipeline {
    application: String,
    name: String,
    partitions: u32,
    deleting: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Audit {
    partition: u32,
    offsets: u64,
    finished: u64,
    dead: u64,
    live: u64,
    parked: u64,
    absent: u64,
    lost: u64,
    adds_up: bool,
}

/// What the audits of one pipeline say.
#[derive(Debug, Default)]
struct Found {
    /// By partition; of two nodes that answer for one, as it moves, whichever adds up.
    audits: BTreeMap<u32, Audit>,
    /// Why nodes did not answer.
    problems: Vec<String>,
}

impl Found {
    fn is_good(&self, partitions: u32) -> bool {
        let of = |partition| self.audits.get(&partition);
        (0..partitions).all(|partition| of(partition).is_some_and(|audit| audit.adds_up))
    }
}

/// A node, asked for one client.
#[derive(Debug)]
struct Node<'a> {
    url: &'a Url,
    http: &'a Client,
    key: Option<&'a str>,
}

impl Node<'_> {
    /// `None` if there is no such thing.
    async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> anyhow::Result<Option<T>> {
        let mut url = self.url.clone();
        let Ok(mut segments) = url.path_segments_mut() else {
            bail!("{url} is no address of a node; expected http://host:port");
        };
        segments.pop_if_empty().push("api").extend(path);
        drop(segments);
        let request = self.http.get(url.clone());
        let request = match self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let response = request
            .send()
            .await
            .with_context(|| format!("{} does not answer as the HTTP API of a node does", self.url))?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let body = response
            .text()
            .await
            .with_context(|| format!("the answer of {url} broke off"))?;
        if !status.is_success() {
            bail!("{url} answers {status}: {body}");
        }
        let read = serde_json::from_str(&body);
        read.map(Some)
            .with_context(|| format!("{url} answers what is not understood; do the versions fit?"))
    }
}

/// Answers failure if something does not add up, or a partition was not audited.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(audit(arguments))
}

async fn audit(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let http = Client::builder().timeout(ANSWER).build()?;
    let nodes: Vec<Node<'_>> = arguments
        .nodes
        .iter()
        .map(|url| Node {
            url,
            http: &http,
            key: arguments.api_key.as_deref(),
        })
        .collect();
    let pipelines = pipelines(arguments, &nodes).await?;
    let mut out = io::stdout().lock();
    let (mut partitions, mut wrong, mut lost) = (0u64, 0u64, 0u64);
    for pipeline in &pipelines {
        let found = audit_of(pipeline, &nodes, arguments.patience).await;
        for partition in 0..pipeline.partitions {
            let audit = found.audits.get(&partition);
            partitions += 1;
            wrong += u64::from(!audit.is_some_and(|audit| audit.adds_up));
            lost += audit.map_or(0, |audit| audit.lost);
            writeln!(
                out,
                "{}/{} {}",
                pipeline.application,
                pipeline.name,
                line(partition, audit)
            )?;
        }
        if !found.is_good(pipeline.partitions) {
            for problem in &found.problems {
                writeln!(out, "    {problem}")?;
            }
        }
    }
    if lost > 0 {
        writeln!(out, "the logs have lost {lost} tasks before they ended")?;
    }
    if wrong > 0 {
        writeln!(out, "{wrong} of {partitions} partitions do NOT add up")?;
        return Ok(ExitCode::FAILURE);
    }
    writeln!(
        out,
        "{} pipelines, {partitions} partitions: every offset is accounted for",
        pipelines.len()
    )?;
    Ok(ExitCode::SUCCESS)
}

/// What is to be audited, by whichever node answers first.
async fn pipelines(arguments: &Arguments, nodes: &[Node<'_>]) -> anyhow::Result<Vec<Pipeline>> {
    let mut problem = None;
    for node in nodes {
        match pipelines_by(arguments, node).await {
            Ok(pipelines) => return Ok(pipelines),
            Err(error) => problem = Some(error),
        }
    }
    Err(problem.unwrap_or_else(|| anyhow::anyhow!("no node is named")))
}

async fn pipelines_by(arguments: &Arguments, node: &Node<'_>) -> anyhow::Result<Vec<Pipeline>> {
    if let (Some(application), Some(pipeline)) = (&arguments.application, &arguments.pipeline) {
        let found: Option<Pipeline> = node
            .get(&["applications", application, "pipelines", pipeline])
            .await?;
        let found = found.with_context(|| format!("there is no pipeline {application}/{pipeline}"))?;
        return Ok(vec![found]);
    }
    let applications = match &arguments.application {
        Some(name) => vec![Application { name: name.clone() }],
        None => node
            .get::<Items<_>>(&["applications"])
            .await?
            .map_or_else(Vec::new, |list| list.items),
    };
    let mut all = Vec::new();
    for Application { name } in applications {
        let found = node
            .get::<Items<Pipeline>>(&["applications", &name, "pipelines"])
            .await?;
        let found = found.with_context(|| format!("there is no application {name}"))?;
        all.extend(found.items.into_iter().filter(|pipeline| !pipeline.deleting));
    }
    Ok(all)
}

/// Looks until everything adds up, or the patience is over.
async fn audit_of(pipeline: &Pipeline, nodes: &[Node<'_>], patience: u64) -> Found {
    let begun = tokio::time::Instant::now();
    loop {
        let found = look(pipeline, nodes).await;
        if found.is_good(pipeline.partitions) || begun.elapsed() >= Duration::from_secs(patience) {
            return found;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(pipeline: &Pipeline, nodes: &[Node<'_>]) -> Found {
    let mut found = Found::default();
    for node in nodes {
        let path = [
            "applications",
            &pipeline.application,
            "pipelines",
            &pipeline.name,
            "audit",
        ];
        match node.get::<Vec<Audit>>(&path).await {
            Ok(audits) => {
                for audit in audits.unwrap_or_default() {
                    let known = found.audits.entry(audit.partition).or_insert(audit);
                    if !known.adds_up {
                        *known = audit;
                    }
                }
            }
            Err(error) => found.problems.push(format!("{error:#}")),
        }
    }
    found
}

fn line(partition: u32, audit: Option<&Audit>) -> String {
    let Some(Audit {
        offsets,
        finished,
        dead,
        live,
        parked,
        absent,
        lost,
        adds_up,
        ..
    }) = audit
    else {
        return format!("partition {partition}: NOT AUDITED, as it lives on none of the nodes that answered");
    };
    let verdict = if *adds_up { "" } else { ": DOES NOT ADD UP" };
    format!(
        "partition {partition}: {offsets} offsets = {finished} finished + {dead} dead + {live} live + {parked} parked + {absent} absent + {lost} lost{verdict}"
    )
}
