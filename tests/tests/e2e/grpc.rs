//! A worker in any language: unary calls with nothing but the generated client.

use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::worker_service_client::WorkerServiceClient;
use scheduler_proto::worker::{
    ExtendRequest, Lease, LeaseRef, LocateRequest, PollRequest, PollResponse, Report, ReportRequest,
};
use serde_json::json;
use tonic::Code;
use tonic::transport::Channel;

use crate::world::{APPLICATION, Pipeline, World, run};

struct Unary {
    client: WorkerServiceClient<Channel>,
    pipeline: String,
    worker_id: Vec<u8>,
}

impl Unary {
    async fn connect(world: &World, pipeline: &Pipeline, id: u8) -> Self {
        let client = WorkerServiceClient::connect(world.grpc().to_owned())
            .await
            .unwrap();
        Self {
            client,
            pipeline: pipeline.name.clone(),
            worker_id: vec![id; 16],
        }
    }

    async fn poll(&mut self, limit: u32) -> PollResponse {
        let request = PollRequest {
            application: APPLICATION.into(),
            pipeline: self.pipeline.clone(),
            worker_id: self.worker_id.clone().into(),
            limit,
            wait_ms: 60_000,
        };
        self.client.poll(request).await.unwrap().into_inner()
    }

    async fn report(&mut self, outcomes: Vec<(LeaseRef, Outcome)>) -> Vec<bool> {
        let reports = outcomes
            .into_iter()
            .map(|(lease, outcome)| Report {
                r#ref: Some(lease),
                outcome: Some(outcome),
            })
            .collect();
        let request = ReportRequest {
            application: APPLICATION.into(),
            pipeline: self.pipeline.clone(),
            worker_id: self.worker_id.clone().into(),
            reports,
        };
        self.client.report(request).await.unwrap().into_inner().taken
    }

    async fn extend(&mut self, refs: Vec<LeaseRef>) -> Vec<bool> {
        let request = ExtendRequest {
            application: APPLICATION.into(),
            pipeline: self.pipeline.clone(),
            worker_id: self.worker_id.clone().into(),
            refs,
        };
        self.client.extend(request).await.unwrap().into_inner().held
    }
}

fn lease_of(lease: &Lease) -> LeaseRef {
    lease.r#ref.unwrap()
}

#[test]
fn a_simple_client_polls_extends_and_reports() {
    run(async {
        let mut world = World::start().await;
        let policy = json!({"retry": {"initial_backoff": "5ms"}});
        let pipeline = world.pipeline("unary", json!({"policy": policy})).await;
        let mut worker = Unary::connect(&world, &pipeline, 1).await;

        // The poll waits for a task that is submitted later.
        let (polled, id) = tokio::join!(worker.poll(1), pipeline.submit(json!({"n": 1})));
        let lease = polled.leases[0].clone();
        assert_eq!(&lease.params[..], br#"{"n":1}"#);
        assert!(polled.heartbeat_ms > 0);
        assert_eq!(pipeline.task(&id).await["state"], "running");
        assert_eq!(worker.extend(vec![lease_of(&lease)]).await, [true]);

        let failed = Outcome::Failed("try again".into());
        assert_eq!(worker.report(vec![(lease_of(&lease), failed)]).await, [true]);
        let again = worker.poll(10).await.leases[0].clone();
        assert_eq!(lease_of(&again).offset, lease_of(&lease).offset);
        assert_eq!(lease_of(&again).attempt, lease_of(&lease).attempt + 1);
        assert_eq!(
            worker.extend(vec![lease_of(&lease), lease_of(&again)]).await,
            [false, true]
        );
        let late = Outcome::Failed("late".into());
        assert_eq!(
            worker.report(vec![(lease_of(&lease), late)]).await,
            [false],
            "an older attempt's failure"
        );

        let done = Outcome::Succeeded(r#"{"read":true}"#.into());
        assert_eq!(
            worker.report(vec![(lease_of(&again), done.clone())]).await,
            [true]
        );
        assert_eq!(pipeline.output(&id).await, json!({"read": true}));
        assert_eq!(
            worker.report(vec![(lease_of(&again), done)]).await,
            [false],
            "it has ended"
        );

        // What was answered is saved: it is there after a crash.
        world.kill().await;
        world.restart().await;
        assert_eq!(pipeline.output(&id).await, json!({"read": true}));
        world.stop().await;
    });
}

#[test]
fn a_batch_is_leased_reported_and_returned() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("unary", json!({})).await;
        let ids = pipeline.submit_all((0..3).map(|n| json!({"n": n}))).await;
        pipeline
            .until_view("they are there", |view| view["counts"]["ready"] == 3)
            .await;
        let mut worker = Unary::connect(&world, &pipeline, 1).await;
        let leases = worker.poll(10).await.leases;
        assert_eq!(leases.len(), 3);
        let outcomes = vec![
            (lease_of(&leases[0]), Outcome::Succeeded("1".into())),
            (lease_of(&leases[1]), Outcome::Rejected("never".into())),
            (
                lease_of(&leases[2]),
                Outcome::Returned(scheduler_proto::worker::Unit {}),
            ),
        ];
        assert_eq!(worker.report(outcomes).await, [true; 3]);
        assert_eq!(pipeline.ended(&ids[1]).await["dead_reason"], "rejected");
        let mut other = Unary::connect(&world, &pipeline, 2).await;
        let returned = other.poll(10).await.leases;
        assert_eq!(lease_of(&returned[0]).offset, lease_of(&leases[2]).offset);
        other
            .report(vec![(lease_of(&returned[0]), Outcome::Succeeded("3".into()))])
            .await;
        assert_eq!(pipeline.output(&ids[2]).await, 3);
        world.stop().await;
    });
}

#[test]
fn bad_calls_name_the_field_and_harm_nothing() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("unary", json!({})).await;
        // Until its shard is up, a call is answered with when to try again.
        pipeline.submit(json!({})).await;
        pipeline
            .until_view("the shard is up", |view| view["counts"]["ready"] == 1)
            .await;
        let mut worker = Unary::connect(&world, &pipeline, 1).await;
        let good = PollRequest {
            application: APPLICATION.into(),
            pipeline: "unary".into(),
            worker_id: vec![1; 16].into(),
            limit: 1,
            wait_ms: 0,
        };
        for (request, code) in [
            (
                PollRequest {
                    application: "Upper".into(),
                    ..good.clone()
                },
                Code::InvalidArgument,
            ),
            (
                PollRequest {
                    pipeline: "missing".into(),
                    ..good.clone()
                },
                Code::NotFound,
            ),
            (
                PollRequest {
                    worker_id: vec![1; 15].into(),
                    ..good.clone()
                },
                Code::InvalidArgument,
            ),
            (
                PollRequest {
                    limit: 1_001,
                    ..good.clone()
                },
                Code::InvalidArgument,
            ),
            (
                PollRequest {
                    wait_ms: 60_001,
                    ..good.clone()
                },
                Code::InvalidArgument,
            ),
        ] {
            let status = worker.client.poll(request.clone()).await.expect_err("it is bad");
            assert_eq!(status.code(), code, "{request:?}: {status}");
            assert!(!status.message().is_empty());
        }
        let nowhere = LeaseRef {
            partition: 0,
            offset: u64::MAX,
            epoch: u32::MAX,
            attempt: u32::MAX,
        };
        assert_eq!(worker.extend(vec![nowhere]).await, [false]);
        let reports = vec![(nowhere, Outcome::Succeeded("1".into()))];
        assert_eq!(worker.report(reports).await, [false]);
        let elsewhere = LeaseRef {
            partition: 99,
            ..nowhere
        };
        for (lease, field) in [
            (LeaseRef::default(), "refs[0].attempt: "),
            (elsewhere, "refs[0].partition: "),
        ] {
            let request = ExtendRequest {
                application: APPLICATION.into(),
                pipeline: "unary".into(),
                worker_id: vec![1; 16].into(),
                refs: vec![lease],
            };
            let status = worker.client.extend(request).await.expect_err("it is no lease");
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().starts_with(field), "{status}");
        }
        let locate = LocateRequest {
            application: APPLICATION.into(),
            pipeline: "unary".into(),
        };
        let found = worker.client.locate(locate).await.unwrap().into_inner();
        assert_eq!(found.locations.len(), 1);
        world.stop().await;
    });
}
