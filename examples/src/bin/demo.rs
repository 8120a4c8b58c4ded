//! The whole system on this machine: a server, a pipeline from a chart, tasks over HTTP, and what came of them.
#![expect(clippy::print_stdout, reason = "it is for people to look at")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;
use scheduler_examples::{Api, Event, Pictures, Server, ServerOptions, directory, is_installed};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// Shows the scheduler at work, on this machine and with real tools.
#[derive(Debug, Parser)]
#[command(name = "cargo demo --")]
struct Arguments {
    /// End when the tasks have ended, instead of staying up until Ctrl-C.
    #[arg(long)]
    once: bool,

    /// Keep the data directory.
    #[arg(long)]
    keep: bool,

    /// Where HTTP is served; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    http: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    let mut home = tempfile::Builder::new().prefix("scheduler-demo-").tempdir()?;
    home.disable_cleanup(arguments.keep);
    let options = ServerOptions {
        data: home.path().join("data"),
        log: home.path().join("server.log"),
        arguments: vec!["--http".into(), arguments.http.clone()],
    };
    let server = Server::start(&options).await?;
    say(&format!(
        "The server is up, with its data in {}.",
        options.data.display()
    ));
    let pictures = Pictures::serve().await?;
    let api = server.api();

    let ended = tokio::select! {
        shown = show(&api, &pictures) => match shown {
            Ok(chart) => {
                if !arguments.once {
                    invite(&server, &chart);
                    say("It stays up until Ctrl-C.");
                    tokio::select! {
                        _ = interrupt.recv() => (),
                        _ = terminate.recv() => (),
                    }
                }
                Ok(())
            }
            Err(error) => Err(error.context(format!("what the server logged:\n{}", server.log()))),
        },
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    server.stop().await?;
    ended?;
    if arguments.keep {
        say(&format!(
            "Everything has ended; {} is kept.",
            home.path().display()
        ));
    } else {
        home.close().context("the data directory cannot be removed")?;
        say("Everything has ended, and its data is removed.");
    }
    Ok(())
}

/// What is deployed and asked of it.
struct Chart {
    name: &'static str,
    path: PathBuf,
    /// What to call each task, its params, and its whole output where that is known.
    tasks: Vec<(String, Value, Option<Value>)>,
    /// The last step's key in the output.
    result: &'static str,
}

async fn show(api: &Api, pictures: &Pictures) -> anyhow::Result<Chart> {
    let chart = choose(pictures)?;
    say(&format!("Deploying {} from its chart:", chart.name));
    let pipelines = "/api/applications/myname/pipelines";
    let new = json!({"name": chart.name, "chart": path_text(&chart.path)?});
    println!("POST {pipelines} {new}");
    let answer = api.post(pipelines, &new).await?;
    println!("  {}", answer.status);
    answer.ok()?;

    let pipeline = format!("{pipelines}/{}", chart.name);
    let mut events = api.events(&format!("{pipeline}/events")).await?;
    say("Submitting tasks:");
    let mut names = BTreeMap::new();
    for (name, params, expected) in &chart.tasks {
        println!("POST {pipeline} {params}");
        let answer = api.post(&pipeline, params).await?;
        println!("  {} {}", answer.status, answer.body);
        let id = answer.ok()?["id"].as_str().context("there is no id")?.to_owned();
        names.insert(id, (name.as_str(), expected));
    }

    say("What happens, as the server tells it:");
    let mut open = names.len();
    while open > 0 {
        let event = events.next().await?.context("the events ended too early")?;
        let id = event.data["id"].as_str().unwrap_or_default();
        let Some((name, expected)) = names.get(id) else {
            continue;
        };
        if print_event(name, &event, chart.result, expected.as_ref())? {
            open -= 1;
        }
    }
    Ok(chart)
}

fn choose(pictures: &Pictures) -> anyhow::Result<Chart> {
    let charts = directory().join("charts");
    if is_installed("tesseract") && is_installed("wget") {
        let mut tasks = Vec::new();
        for name in Pictures::names()? {
            let text = Value::String(Pictures::text(&name)?);
            tasks.push((name.clone(), json!({"url": pictures.url(&name)}), Some(text)));
        }
        return Ok(Chart {
            name: "ocr",
            path: charts.join("ocr"),
            tasks,
            result: "2:tesseract",
        });
    }
    say(
        "Text recognition needs `apt-get install tesseract-ocr wget`; without them, words are counted with coreutils.",
    );
    let texts = [
        ("a sentence", "to be or not to be"),
        ("an attack", "$(date) `hostname` \"; exit 1 #'"),
    ];
    let tasks = texts.map(|(name, text)| (name.to_owned(), json!({"text": text}), None));
    Ok(Chart {
        name: "coreutils",
        path: charts.join("coreutils"),
        tasks: tasks.into(),
        result: "2:count",
    })
}

/// Shows a change of a task; answers whether it has ended.
fn print_event(name: &str, event: &Event, result: &str, expected: Option<&Value>) -> anyhow::Result<bool> {
    let task = &event.data;
    let state = task["state"].as_str().unwrap_or_default();
    println!("{name}: {state}{}", steps(&task["progress"]));
    match state {
        "succeeded" => {
            let outputs = task["output"][result].as_array().context("there is no output")?;
            let texts = outputs
                .iter()
                .filter_map(Value::as_str)
                .filter(|text| !text.trim().is_empty());
            for line in texts.flat_map(str::lines) {
                println!("    {line}");
            }
            if let Some(expected) = expected {
                let same = outputs.iter().any(|output| text_of(output) == text_of(expected));
                anyhow::ensure!(
                    same,
                    "{name}: this is not what is written on the picture, {expected}"
                );
                println!("  which is what is written on the picture.");
            }
            Ok(true)
        }
        "dead" | "cancelled" | "expired" => anyhow::bail!("{name} did not succeed: {task}"),
        _ => Ok(false),
    }
}

/// How far the steps of a running task are: ` (1:wget succeeded, 2:tesseract running)`.
fn steps(progress: &Value) -> String {
    let steps = progress["steps"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let told: Vec<String> = steps
        .iter()
        .map(|step| format!("{} {}", text(&step["step"]), text(&step["state"])))
        .collect();
    if told.is_empty() {
        String::new()
    } else {
        format!(" ({})", told.join(", "))
    }
}

/// Without the blank lines and page breaks that surround it.
fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default().trim()
}

fn invite(server: &Server, chart: &Chart) {
    let (http, name) = (server.http(), chart.name);
    let pipeline = format!("{http}/api/applications/myname/pipelines/{name}");
    let params = chart
        .tasks
        .first()
        .map(|(_, params, _)| params.to_string())
        .unwrap_or_default();
    let quoted = params.replace('\'', r"'\''");
    say("Things to try:");
    println!("  The dashboard: {http}/dashboard/");
    println!("  The API, to read and to try: {http}/api/docs");
    println!("  curl -s '{pipeline}?wait=30s' -H 'content-type: application/json' -d '{quoted}'");
    println!("  curl -s '{pipeline}/tasks'");
    println!("  curl -s '{pipeline}'");
    println!("  curl -sN '{pipeline}/events'");
    println!("  A worker of your own, and work for it:");
    let texts = format!("{http}/api/applications/texts/pipelines");
    println!("  curl -s '{texts}' -H 'content-type: application/json' -d '{{\"name\":\"count\"}}'");
    println!(
        "  SCHEDULER_URL={} cargo run -p scheduler-examples --example worker &",
        server.grpc()
    );
    println!(
        "  curl -s '{texts}/count?wait=30s' -H 'content-type: application/json' -d '{{\"text\":\"to be or not to be\"}}'"
    );
}

fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is no text", path.display()))
}

fn say(text: &str) {
    println!("\n== {text}");
}
