//! A worker's session: leases and reports over one stream on loopback, so many of them in a message, four messages under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use scheduler_grpc::server::{GrpcConfig, serve};
use scheduler_proto::worker as wire;
use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::session_request::Kind;
use scheduler_proto::worker::session_response::Kind as Told;
use scheduler_proto::worker::worker_service_client::WorkerServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use crate::gateway::Easy;
use crate::{listener, runtime};

/// Leases of a message.
const TOGETHER: [u32; 3] = [1, 32, 500];
const UNDER_WAY: u32 = 4;

struct Worker {
    say: mpsc::Sender<wire::SessionRequest>,
    told: Streaming<wire::SessionResponse>,
}

impl Worker {
    async fn open(address: String) -> Self {
        let channel = Endpoint::from_shared(address)
            .expect("an address")
            .connect()
            .await
            .expect("the server is there");
        let (say, said) = mpsc::channel(64);
        let hello = wire::Hello {
            application: "bench".into(),
            pipeline: "session".into(),
            worker_id: vec![7; 16].into(),
            name: "bench".into(),
            number: 1,
            ..wire::Hello::default()
        };
        say.send(request(Kind::Hello(hello)))
            .await
            .expect("there is room");
        let told = WorkerServiceClient::new(channel)
            .session(ReceiverStream::new(said))
            .await
            .expect("the server opens a session")
            .into_inner();
        Self { say, told }
    }

    async fn say(&self, kind: Kind) {
        self.say.send(request(kind)).await.expect("the session goes on");
    }

    /// Takes `tasks` leases, rounded up to whole messages, and reports each of them; answers how long that took.
    async fn work(&mut self, tasks: u64, together: u32) -> Duration {
        let begin = Instant::now();
        let wanted = tasks.next_multiple_of(together.into());
        let mut given = 0;
        for _ in 0..UNDER_WAY {
            given += self.credit(together.into(), wanted - given).await;
        }
        let mut done = 0;
        while done < wanted {
            let message = self.told.message().await.expect("the session goes on");
            let Some(Told::Leases(leases)) = message.and_then(|message| message.kind) else {
                continue;
            };
            let count = leases.leases.len() as u64;
            let reports = leases.leases.into_iter().map(|lease| wire::Report {
                r#ref: lease.r#ref,
                outcome: Some(Outcome::Succeeded("{}".into())),
            });
            let reports = wire::Reports {
                reports: reports.collect(),
            };
            self.say(Kind::Reports(reports)).await;
            given += self.credit(count, wanted - given).await;
            done += count;
        }
        begin.elapsed()
    }

    /// Gives credit for so many, but no more than are left; answers how much it was.
    async fn credit(&self, many: u64, left: u64) -> u64 {
        let many = many.min(left);
        if many > 0 {
            self.say(Kind::Credit(u32::try_from(many).unwrap_or(u32::MAX)))
                .await;
        }
        many
    }
}

fn request(kind: Kind) -> wire::SessionRequest {
    wire::SessionRequest { kind: Some(kind) }
}

pub(crate) fn sessions(criterion: &mut Criterion) {
    let runtime = runtime();
    let (address, listener) = listener(&runtime);
    let server = serve(
        listener,
        Arc::new(Easy::new()),
        GrpcConfig::default(),
        std::future::pending(),
    );
    runtime.spawn(server);
    let mut group = criterion.benchmark_group("grpc_session_per_task");
    group.throughput(Throughput::Elements(1));
    for together in TOGETHER {
        let mut worker = runtime.block_on(Worker::open(format!("http://{address}")));
        group.bench_function(BenchmarkId::from_parameter(together), |bencher| {
            bencher.iter_custom(|iters| runtime.block_on(worker.work(iters, together)));
        });
    }
    group.finish();
}
