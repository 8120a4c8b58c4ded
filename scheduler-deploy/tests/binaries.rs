//! The local deployer with the real worker and the real executor, and a stand-in for the scheduler that has one task to give.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use scheduler_core::id::PipelineId;
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::catalog::{Deployment, Replicas};
use scheduler_core::port::deploy::{Deployer as _, RolloutPhase, Wanted};
use scheduler_deploy::local::{LocalConfig, LocalDeployer};
use scheduler_proto::worker as wire;
use scheduler_proto::worker::session_request::Kind as Said;
use scheduler_proto::worker::session_response::Kind as Told;
use scheduler_proto::worker::worker_service_server::{WorkerService, WorkerServiceServer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Builds the binaries and says where they are: Cargo gives a test only those of its own package.
fn binaries() -> PathBuf {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--profile",
            profile,
            "-p",
            "scheduler-worker",
            "-p",
            "command-executor",
        ])
        .status()
        .unwrap();
    assert!(built.success());
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().to_owned()
}

/// Gives each worker one lease as soon as it has room, and hands its reports to the test.
#[derive(Clone)]
struct OneTask {
    definition: Bytes,
    params: Bytes,
    reports: mpsc::UnboundedSender<wire::Report>,
    hellos: Arc<Mutex<Vec<wire::Hello>>>,
}

#[tonic::async_trait]
impl WorkerService for OneTask {
    type SessionStream = BoxStream<'static, Result<wire::SessionResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (tell, told) = mpsc::unbounded_channel();
        let this = self.clone();
        tokio::spawn(async move {
            let say = |kind| tell.send(Ok(wire::SessionResponse { kind: Some(kind) }));
            let mut given = false;
            let mut said = request.into_inner();
            while let Ok(Some(message)) = said.message().await {
                match message.kind.unwrap() {
                    Said::Hello(hello) => {
                        this.hellos.lock().unwrap().push(hello);
                        let _ = say(Told::Welcome(wire::Welcome {
                            definition: this.definition.clone(),
                            heartbeat_ms: 1000,
                        }));
                    }
                    Said::Credit(_) if !given => {
                        given = true;
                        let lease = wire::Lease {
                            r#ref: Some(wire::LeaseRef {
                                partition: 0,
                                offset: 0,
                                epoch: 1,
                                attempt: 1,
                            }),
                            params: this.params.clone(),
                            run_until_ms: u64::MAX,
                            traceparent: Bytes::new(),
                            priority: 4,
                        };
                        let _ = say(Told::Leases(wire::Leases { leases: vec![lease] }));
                    }
                    Said::Reports(reports) => {
                        let count = reports.reports.len() as u64;
                        for report in reports.reports {
                            let _ = this.reports.send(report);
                        }
                        let _ = say(Told::Settled(wire::Settled {
                            partition: 0,
                            epoch: 1,
                            count,
                        }));
                    }
                    _ => {}
                }
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(told).boxed()))
    }

    async fn poll(&self, _: Request<wire::PollRequest>) -> Result<Response<wire::PollResponse>, Status> {
        Err(Status::unimplemented("a stand-in"))
    }
    async fn report(
        &self,
        _: Request<wire::ReportRequest>,
    ) -> Result<Response<wire::ReportResponse>, Status> {
        Err(Status::unimplemented("a stand-in"))
    }
    async fn extend(
        &self,
        _: Request<wire::ExtendRequest>,
    ) -> Result<Response<wire::ExtendResponse>, Status> {
        Err(Status::unimplemented("a stand-in"))
    }
    async fn locate(
        &self,
        request: Request<wire::LocateRequest>,
    ) -> Result<Response<wire::LocateResponse>, Status> {
        let address = request.local_addr().unwrap().to_string();
        let locations = vec![wire::Location {
            partition: 0,
            address,
        }];
        Ok(Response::new(wire::LocateResponse { locations }))
    }
}

#[tokio::test]
async fn the_coreutils_chart_runs_a_task_in_real_processes() {
    let programs = binaries();
    let directory = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config = LocalConfig {
        worker_program: programs.join("scheduler-worker"),
        executor_program: programs.join("command-executor"),
        ..LocalConfig::new(directory.path().join("state"), url)
    };
    let deployer = LocalDeployer::open(config).await.unwrap();
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/charts/coreutils");
    let deployment = Deployment {
        chart: chart.to_str().unwrap().to_owned(),
        values: Bytes::new(),
        replicas: Replicas { min: 1, max: 1 },
    };
    let name = |text: &str| text.parse::<Name>().unwrap();
    let path = PipelinePath {
        client: name("default"),
        application: name("examples"),
        pipeline: name("coreutils"),
    };
    let facts = deployer.inspect(&path, &deployment.clone().into()).await.unwrap();

    let (reports, mut reported) = mpsc::unbounded_channel();
    let scheduler = OneTask {
        definition: facts.definition.unwrap(),
        params: r#"{"text": "it's $(id) it's"}"#.into(),
        reports,
        hellos: Arc::default(),
    };
    let server = tonic::transport::Server::builder()
        .add_service(WorkerServiceServer::new(scheduler.clone()))
        .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
    let server = tokio::spawn(server);

    let wanted = Wanted {
        pipeline: PipelineId(1),
        path,
        version: 1,
        deployment,
        definition: "".into(),
    };
    deployer.apply(wanted).await.unwrap();
    let report = reported.recv().await.unwrap();
    let Some(wire::report::Outcome::Succeeded(output)) = report.outcome else {
        panic!("{report:?}");
    };
    let output = String::from_utf8(output.to_vec()).unwrap();
    assert!(
        output.contains(r#""2:count""#) && output.contains("2 it's") && output.contains("1 $(id)"),
        "{output}"
    );
    let hello = scheduler.hellos.lock().unwrap()[0].clone();
    assert_eq!(
        (hello.application.as_str(), hello.pipeline.as_str()),
        ("examples", "coreutils")
    );
    assert_eq!(hello.name, "p1-1");

    let rollout = deployer.rollout(PipelineId(1)).await.unwrap().unwrap();
    assert_ne!(rollout.phase, RolloutPhase::Failed);
    deployer.shutdown().await;
    server.abort();
}

/// Their standard input ends when who started them dies, however that happens.
#[test]
fn worker_and_executor_end_with_who_started_them() {
    let programs = binaries();
    let workspace = tempfile::tempdir().unwrap();
    let start = |program: &str| {
        Command::new(programs.join(program))
            .env("EXIT_WITH_STDIN", "1")
            .env("COMMAND_EXECUTOR_SERVER_GRPC_PORT", "127.0.0.1:0")
            .env("COMMAND_EXECUTOR_DRAIN_IDLE_MS", "10")
            .env("SCHEDULER_WORKER_HTTP", "off")
            .env("SCHEDULER_WORKSPACE", workspace.path())
            .env("PIPELINE_AGENT__EXECUTORS__0__NAME", "sh")
            .env("PIPELINE_AGENT__EXECUTORS__0__TARGET", "127.0.0.1:1")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    for program in ["scheduler-worker", "command-executor"] {
        let mut child = start(program);
        assert!(child.try_wait().unwrap().is_none());
        // Nobody reads its log any more, either.
        drop(child.stderr.take());
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
