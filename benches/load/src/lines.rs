//! Tests as lines of JSON, for a program that drives several systems in the same way: it writes a line such as
//! `{"test":"pipe","n":1000000,"rate":0,"secs":0,"warm":0,"limit":60}`, and is answered `START` when the timed part begins and `END {...}` when it is
//! over. `READY` comes first. `{"test":"reset"}` makes a new pipeline and answers `END`.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::measure::{Amount, Test};
use crate::people::{Load, Place};

#[derive(Debug, Deserialize)]
struct Request {
    test: String,
    #[serde(default)]
    n: u64,
    #[serde(default)]
    rate: u64,
    #[serde(default)]
    secs: u64,
    #[serde(default)]
    warm: u64,
    /// Seconds.
    #[serde(default)]
    limit: f64,
}

/// Answers line by line until standard input ends.
pub async fn answer(load: &Load) -> anyhow::Result<()> {
    let mut number = 0;
    let mut place = Place::open(load, "lines-0").await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    say("READY");
    while let Some(line) = lines.next_line().await? {
        let request: Request = serde_json::from_str(&line).context("a line that is no test")?;
        let answer = if request.test == "reset" {
            place.close().await?;
            number += 1;
            place = Place::open(load, &format!("lines-{number}")).await?;
            json!({})
        } else {
            match run(&place, &request).await {
                Ok(answer) => answer,
                Err(error) => json!({"err": format!("{error:#}")}),
            }
        };
        say(&format!("END {answer}"));
    }
    Ok(())
}

async fn run(place: &Place, request: &Request) -> anyhow::Result<serde_json::Value> {
    let test: Test = serde_json::from_value(request.test.clone().into())?;
    let amount = Amount {
        tasks: request.n,
        rate: request.rate,
        seconds: request.secs,
        warm: request.warm,
        limit: Duration::try_from_secs_f64(request.limit).context("limit")?,
    };
    let outcome = test.run(place, amount, || say("START"), || ()).await?;
    Ok(serde_json::to_value(&outcome)?)
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever drives us has gone if it cannot be written; then standard input ends too.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
