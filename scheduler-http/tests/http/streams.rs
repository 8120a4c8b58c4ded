//! Streams and connections over real sockets.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use scheduler_core::port::gateway::TaskState;
use scheduler_http::{HttpConfig, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use crate::client::{OCR, World, small, with_key};
use crate::fake::{Call, FakeGateway, KEY, id, view};

/// A server on a port of its own.
struct Server {
    gateway: Arc<FakeGateway>,
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<std::io::Result<()>>,
    client: Client<HttpConnector, Body>,
}

impl Server {
    async fn start(config: HttpConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = World::with(config.clone());
        let (stop, stopped) = oneshot::channel();
        let router = world.router;
        let running = tokio::spawn(async move {
            serve(listener, router, &config, async {
                let _ = stopped.await;
            })
            .await
        });
        Self {
            gateway: world.gateway,
            address,
            stop,
            running,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn get(&self, path: &str) -> Lines {
        let request = with_key(Method::GET, &self.url(path))
            .body(Body::empty())
            .unwrap();
        Lines::of(self.client.request(request).await.unwrap())
    }

    fn bulk(&self, body: Body) -> Request<Body> {
        with_key(Method::POST, &self.url(&format!("{OCR}/tasks/bulk")))
            .header("content-type", "application/x-ndjson")
            .body(body)
            .unwrap()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Ends the server and waits for it.
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }
}

/// A body that is read line by line as it comes.
struct Lines {
    status: StatusCode,
    body: Body,
    text: String,
}

impl Lines {
    fn of<B>(response: Response<B>) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let status = response.status();
        Self {
            status,
            body: Body::new(response.into_body()),
            text: String::new(),
        }
    }

    /// The next line without its end; `None` at the end of the body.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.find('\n') {
                let line = self.text.drain(..=end).collect::<String>();
                return Some(line.trim_end().to_owned());
            }
            let frame = self.body.frame().await?.unwrap();
            self.text
                .push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    }

    /// The next event as its name and its data; comments are skipped.
    async fn event(&mut self) -> Option<(String, serde_json::Value)> {
        let (mut name, mut data) = (String::new(), String::new());
        loop {
            let line = self.next().await?;
            if let Some(text) = line.strip_prefix("event: ") {
                text.clone_into(&mut name);
            } else if let Some(text) = line.strip_prefix("data: ") {
                data.push_str(text);
                data.push('\n');
            } else if line.is_empty() && !name.is_empty() {
                return Some((name, serde_json::from_str(&data).unwrap()));
            }
        }
    }

    /// There are `count` answers, and the one to line n is the id of the task whose params begin with `{"n":n`.
    async fn all_are_of(&mut self, count: u64, gateway: &FakeGateway) {
        for n in 0..count {
            let answer: serde_json::Value = serde_json::from_str(&self.next().await.unwrap()).unwrap();
            let id = answer["id"].as_str().unwrap();
            let params = gateway.taken.lock().unwrap().remove(id).unwrap();
            assert!(
                params.starts_with(format!("{{\"n\":{n}").as_bytes()),
                "{params:?}"
            );
        }
        assert_eq!(self.next().await, None);
    }

    async fn reason_of_end(&mut self) -> String {
        let (name, data) = self.event().await.unwrap();
        assert_eq!(name, "end");
        assert_eq!(self.event().await, None);
        data["reason"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn the_events_of_a_task_end_with_it() {
    let server = Server::start(small()).await;
    let mut events = server.get(&format!("{OCR}/tasks/t1-0-1/events")).await;
    assert_eq!(events.status, StatusCode::OK);
    let (name, task) = events.event().await.unwrap();
    assert_eq!((name.as_str(), &task["state"]), ("task", &"running".into()));
    server.gateway.tell(&view(id(1), TaskState::Succeeded));
    let (_, task) = events.event().await.unwrap();
    assert_eq!(task["state"], "succeeded");
    // The output has a line break in it.
    assert_eq!(task["output"]["1:wget"][0], "");
    assert_eq!(events.reason_of_end().await, "finished");
    server.stop().await;
}

#[tokio::test]
async fn the_events_of_a_pipeline_go_on_until_it_is_gone() {
    let server = Server::start(small()).await;
    let mut events = server.get(&format!("{OCR}/events")).await;
    for state in [TaskState::Succeeded, TaskState::Dead] {
        server.gateway.tell(&view(id(1), state));
        assert_eq!(events.event().await.unwrap().0, "task");
    }
    server.gateway.forget_watchers();
    assert_eq!(events.reason_of_end().await, "stopped");
    server.stop().await;
}

#[tokio::test]
async fn silence_is_broken_by_comments() {
    let config = HttpConfig {
        event_keep_alive: Duration::from_millis(1),
        ..small()
    };
    let server = Server::start(config).await;
    let mut events = server.get(&format!("{OCR}/events")).await;
    assert_eq!(events.next().await.unwrap(), ":");
    drop(events);
    server.stop().await;
}

#[tokio::test]
async fn a_shutdown_ends_events_and_waits() {
    let server = Server::start(small()).await;
    let mut events = server.get(&format!("{OCR}/events")).await;
    let request = with_key(
        Method::POST,
        &server.url("/api/applications/stuck/pipelines/ocr?wait=60s"),
    )
    .header("content-type", "application/json")
    .body(Body::from("{}"))
    .unwrap();
    let waiting = tokio::spawn(server.client.request(request));
    server.gateway.entered.acquire().await.unwrap().forget();
    server.stop().await;
    assert_eq!(events.reason_of_end().await, "shutdown");
    let mut accepted = Lines::of(waiting.await.unwrap().unwrap());
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    accepted.text.push('\n');
    let body = accepted.body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(body, r#"{"id":"t1-0-0"}"#);
}

/// A body that is sent as the test goes on.
fn channel() -> (mpsc::Sender<String>, Body) {
    let (sender, receiver) = mpsc::channel::<String>(1);
    let chunks = tokio_stream::wrappers::ReceiverStream::new(receiver);
    (sender, Body::from_stream(chunks.map(Ok::<_, Infallible>)))
}

#[tokio::test]
async fn a_line_is_answered_before_the_next_is_sent() {
    let server = Server::start(small()).await;
    let (sender, body) = channel();
    let mut answers = Lines::of(server.client.request(server.bulk(body)).await.unwrap());
    for n in 0..10 {
        sender.send(format!("{{\"n\":{n}}}\n")).await.unwrap();
        assert_eq!(answers.next().await.unwrap(), format!("{{\"id\":\"{}\"}}", id(n)));
    }
    drop(sender);
    assert_eq!(answers.next().await, None);
    server.stop().await;
}

#[tokio::test]
async fn a_shutdown_ends_a_bulk_submission_at_a_line_that_it_names() {
    let server = Server::start(small()).await;
    let (sender, body) = channel();
    let mut answers = Lines::of(server.client.request(server.bulk(body)).await.unwrap());
    sender.send("{}\n{}\n".to_owned()).await.unwrap();
    answers.next().await.unwrap();
    answers.next().await.unwrap();
    server.stop.send(()).unwrap();
    let last: serde_json::Value = serde_json::from_str(&answers.next().await.unwrap()).unwrap();
    assert_eq!(last["error"]["line"], 3);
    assert_eq!(
        last["error"]["type"],
        "urn:workload-scheduler:problem:unavailable"
    );
    assert_eq!(answers.next().await, None);
    drop(sender);
    server.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_body_is_not_read_on_while_the_log_is_behind() {
    let world = World::new();
    world.gateway.submissions.forget_permits(usize::MAX);
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let chunks = futures::stream::iter(0..1_000).map(move |n| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(format!("{{\"n\":{n}}}\n"))
    });
    let request = with_key(Method::POST, &format!("{OCR}/tasks/bulk"))
        .header("content-type", "application/x-ndjson")
        .body(Body::from_stream(chunks))
        .unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    let mut answers = Lines::of(response);
    assert!(futures::poll!(std::pin::pin!(answers.next())).is_pending());
    // Four batches of four lines are in flight.
    assert_eq!(sent.load(Ordering::Relaxed), 16);
    world.gateway.submissions.add_permits(1_000);
    answers.all_are_of(1_000, &world.gateway).await;
}

#[tokio::test]
async fn a_bulk_submission_of_any_length_is_held_back_and_loses_nothing() {
    const LINES: u64 = 50_000;
    let server = Server::start(HttpConfig::default()).await;
    server.gateway.submissions.forget_permits(usize::MAX);
    let pad = "x".repeat(900);
    let chunks = futures::stream::iter(0..LINES / 100).map(move |hundred| {
        let mut lines = String::new();
        for n in hundred * 100..(hundred + 1) * 100 {
            writeln!(lines, "{{\"n\":{n},\"pad\":\"{pad}\"}}").unwrap();
        }
        Ok::<_, Infallible>(lines)
    });
    let (written, mut is_written) = oneshot::channel::<()>();
    let end = futures::stream::once(async move {
        let _ = written.send(());
        Ok(String::new())
    });
    let request = server.bulk(Body::from_stream(chunks.chain(end)));
    let mut answers = Lines::of(server.client.request(request).await.unwrap());
    server.gateway.entered.acquire_many(4).await.unwrap().forget();
    // 45 MB do not fit into what is between the client and the log.
    assert!(is_written.try_recv().is_err());
    server.gateway.submissions.add_permits(1 << 30);
    answers.all_are_of(LINES, &server.gateway).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_stops_its_bulk_submission() {
    let config = HttpConfig {
        // A connection that outlived its client would hold the stop up for good.
        drain_timeout: Duration::MAX,
        ..small()
    };
    let server = Server::start(config).await;
    server.gateway.submissions.forget_permits(usize::MAX);
    let mut connection = server.connect().await;
    let head = format!(
        "POST {OCR}/tasks/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{{}}\n{{\"n\":\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    server.gateway.entered.acquire().await.unwrap().forget();
    drop(connection);
    server.gateway.submissions.add_permits(1_000);
    let gateway = Arc::clone(&server.gateway);
    server.stop().await;
    // The line that had come whole was taken, the one that broke off was not.
    let calls = gateway.take_calls();
    assert!(
        matches!(&calls[..], [Call::Submit(_, tasks)] if tasks.len() == 1),
        "{calls:?}"
    );
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_headers_is_cut_off() {
    let config = HttpConfig {
        header_timeout: Duration::from_millis(5),
        ..small()
    };
    let server = Server::start(config).await;
    for begun in [
        "GET /healthz HTTP/1.1\r\nHost:",
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut connection = server.connect().await;
        connection.write_all(begun.as_bytes()).await.unwrap();
        // It returns at the end of the connection only, be it after an answer.
        let mut text = String::new();
        connection.read_to_string(&mut text).await.unwrap();
        assert_eq!(
            text.starts_with("HTTP/1.1 200"),
            begun.ends_with("\r\n\r\n"),
            "{text}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_stops_in_its_first_bytes_is_cut_off() {
    let config = HttpConfig {
        idle_timeout: Duration::from_millis(5),
        max_wait: Duration::ZERO,
        ..small()
    };
    let server = Server::start(config).await;
    let mut connection = server.connect().await;
    // The beginning of HTTP/2 as well as of nothing that is known.
    connection.write_all(b"PRI").await.unwrap();
    let mut rest = Vec::new();
    let _ = connection.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_body_is_told() {
    let config = HttpConfig {
        body_timeout: Duration::from_millis(5),
        ..small()
    };
    let server = Server::start(config).await;
    let mut connection = server.connect().await;
    let head = format!(
        "POST {OCR} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    assert!(text.contains("problem:body-timeout"), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn connections_are_bounded() {
    let config = HttpConfig {
        max_connections: 1,
        ..small()
    };
    let server = Server::start(config).await;
    let ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut answer = [0; 12];
    let mut first = server.connect().await;
    first.write_all(ask).await.unwrap();
    first.read_exact(&mut answer).await.unwrap();
    let mut second = server.connect().await;
    second
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    first.write_all(ask).await.unwrap();
    first.read_exact(&mut answer).await.unwrap();
    let mut byte = [0];
    let early = second.try_read(&mut byte);
    assert_eq!(early.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(first);
    let mut text = String::new();
    second.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn http_2_is_served_on_the_same_port() {
    let server = Server::start(small()).await;
    let client: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let request = with_key(Method::GET, &server.url(OCR))
        .body(Body::empty())
        .unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(response.status(), StatusCode::OK);
    drop((response, client));
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_is_refused_unread_leaves_the_connection_for_the_next_request() {
    let server = Server::start(small()).await;
    let mut stream = server.connect().await;
    let length = 12 << 20;
    let head = format!(
        "POST {OCR} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Much more than sockets hold: it arrives only if the server reads on.
    stream.write_all(&vec![b' '; length]).await.unwrap();
    let next = "GET /healthz HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
    stream.write_all(next.as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    let starts = answers.match_indices("HTTP/1.1 ");
    let statuses: Vec<_> = starts
        .map(|(at, start)| &answers[at + start.len()..][..3])
        .collect();
    assert_eq!(statuses, ["413", "200"], "{answers}");
    server.stop().await;
}
