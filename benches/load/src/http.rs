//! HTTP/1.1 as a client of many small requests has it: connections that are kept, one request on each at a time. One thread for all of them, and
//! little work for each request, so that it is the server which is measured.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BytesMut};
use hdrhistogram::Histogram;
use http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

use crate::measure::{Amount, Latency, Outcome};
use crate::work::{TEXT, now};

/// Bytes of a task's params, as of those that come by gRPC.
const BODY: usize = 128;
/// Longer ones count as this, in microseconds.
const SLOWEST: u64 = 600_000_000;
/// More is no head of an answer to a submission.
const MAX_ANSWER: usize = 64 << 10;

/// A connection to the address of tasks of a pipeline.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    /// Where the number of the task stands in the request.
    number_at: usize,
    answer: BytesMut,
}

impl Connection {
    /// Connects; `pipeline` is the address at which it takes tasks, as `http://127.0.0.1:8080/api/applications/a/pipelines/p`.
    pub async fn open(pipeline: &Uri) -> anyhow::Result<Self> {
        let authority = pipeline.authority().context("an address without a host")?;
        let address = (authority.host(), authority.port_u16().unwrap_or(80));
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("{authority} takes no connection"))?;
        stream.set_nodelay(true)?;
        let (before, after) = ("{\"id\":\"", "\",\"text\":\"");
        let rest = BODY - before.len() - 16 - after.len() - "\"}".len();
        let text = String::from_utf8_lossy(&TEXT[..rest]).into_owned();
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\ncontent-length: {BODY}\r\n\r\n{before}",
            pipeline.path()
        );
        Ok(Self {
            stream,
            number_at: head.len(),
            request: format!("{head}{:016x}{after}{text}\"}}", 0).into_bytes(),
            answer: BytesMut::with_capacity(4096),
        })
    }

    /// Submits task `number`; returns when the server has taken it.
    pub async fn submit(&mut self, number: u64) -> anyhow::Result<()> {
        let digits = format!("{number:016x}");
        self.request[self.number_at..self.number_at + digits.len()].copy_from_slice(digits.as_bytes());
        self.stream.write_all(&self.request).await?;
        loop {
            if let Some((status, length)) = answer(&self.answer)? {
                ensure!(
                    status == 202 || status == 200,
                    "a submission was answered with {status}: {}",
                    String::from_utf8_lossy(&self.answer[..length])
                );
                self.answer.advance(length);
                return Ok(());
            }
            ensure!(self.answer.len() < MAX_ANSWER, "an answer has no end");
            let read = self.stream.read_buf(&mut self.answer).await?;
            ensure!(read > 0, "the server closed a connection");
        }
    }
}

/// The status of the answer that the bytes begin with, and its length, once they hold all of it.
fn answer(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes)? else {
        return Ok(None);
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .context("an answer without a length")?;
    let length: usize = str::from_utf8(length.value)?.parse()?;
    let whole = head + length;
    Ok((bytes.len() >= whole).then_some((response.code.unwrap_or(0), whole)))
}

/// What `connections` get through in the time that counts, each with its next request as soon as the last one is answered.
///
/// It blocks meanwhile.
pub fn measure(pipeline: &Uri, connections: u32, amount: Amount) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let begun = now();
    let counts = begun + Duration::from_secs(amount.warm);
    let until = counts + Duration::from_secs(amount.seconds);
    let pipeline = Rc::new(pipeline.clone());
    let histograms = runtime.block_on(LocalSet::new().run_until(async move {
        let mut running = JoinSet::new();
        for connection in 0..connections {
            let pipeline = Rc::clone(&pipeline);
            running.spawn_local(async move {
                let mut latencies = Histogram::<u64>::new_with_bounds(1, SLOWEST, 3)?;
                let mut server = Connection::open(&pipeline).await?;
                let (mut sent, mut number) = (0_u64, u64::from(connection) << 40);
                loop {
                    let asked = now();
                    if asked >= until {
                        return anyhow::Ok((latencies, sent));
                    }
                    server.submit(number).await?;
                    number += 1;
                    sent += 1;
                    if asked >= counts {
                        let micros =
                            u64::try_from(now().saturating_sub(asked).as_micros()).unwrap_or(SLOWEST);
                        latencies.saturating_record(micros.clamp(1, SLOWEST));
                    }
                }
            });
        }
        let mut all = Vec::new();
        while let Some(ended) = running.join_next().await {
            all.push(ended??);
        }
        anyhow::Ok(all)
    }))?;
    let took = now().saturating_sub(counts);
    let mut latencies = Histogram::<u64>::new_with_bounds(1, SLOWEST, 3)?;
    let mut sent = 0;
    for (of_one, count) in histograms {
        latencies.add(of_one)?;
        sent += count;
    }
    if latencies.is_empty() {
        bail!("no request was answered in the time that counts");
    }
    Ok(Outcome {
        sent,
        count: latencies.len(),
        secs: took.as_secs_f64(),
        received_secs: took.as_secs_f64(),
        latency: Some(Latency::of(&latencies, true)),
        ..Outcome::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        let whole = b"HTTP/1.1 202 Accepted\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1";
        assert_eq!(answer(whole).ok(), Some(Some((202, 47))));
        for cut in [0, 10, 44, 46] {
            assert_eq!(answer(&whole[..cut]).ok(), Some(None), "after {cut} bytes");
        }
        assert!(answer(b"HTTP/1.1 202 Accepted\r\n\r\n").is_err());
    }
}
