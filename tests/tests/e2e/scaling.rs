//! What scales workers from outside: KEDA's external scaler, and the metric of existing charts.

use std::time::Duration;

use reqwest::Method;
use scheduler_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use scheduler_proto::externalscaler::{GetMetricsRequest, IsActiveResponse, ScaledObjectRef};
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::worker::LedgerWorker;
use crate::world::{APPLICATION, Pipeline, World, run};

/// What KEDA does, at one node.
struct Keda {
    client: ExternalScalerClient<Channel>,
    trigger: ScaledObjectRef,
}

impl Keda {
    /// One at each node: any of them answers for any pipeline.
    async fn at_each(world: &World, pipeline: &Pipeline, more: &[(&str, &str)]) -> Vec<Self> {
        let mut kedas = Vec::new();
        for node in &world.nodes {
            let address = node.server().grpc().to_owned();
            let base = [("application", APPLICATION), ("pipeline", &pipeline.name)];
            let metadata = base.iter().chain(more);
            kedas.push(Self {
                client: ExternalScalerClient::connect(address).await.unwrap(),
                trigger: ScaledObjectRef {
                    name: "workers".into(),
                    namespace: "anywhere".into(),
                    scaler_metadata: metadata
                        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                        .collect(),
                },
            });
        }
        kedas
    }

    async fn watch(&mut self) -> Streaming<IsActiveResponse> {
        let opened = self.client.stream_is_active(self.trigger.clone()).await;
        opened.unwrap().into_inner()
    }

    /// Waits until it wants so many workers.
    async fn until(&mut self, workers: i64) {
        let mut wanted = None;
        let waiting = async {
            while wanted != Some(workers) {
                wanted = self.wanted().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_mins(1), waiting).await;
        assert!(waited.is_ok(), "never {workers} workers, but {wanted:?}");
    }

    /// How many workers it wants; `None` while that is not known, as shards move.
    async fn wanted(&mut self) -> Option<i64> {
        let request = GetMetricsRequest {
            scaled_object_ref: Some(self.trigger.clone()),
            metric_name: "workers".into(),
        };
        match self.client.get_metrics(request).await {
            Ok(answer) => Some(answer.into_inner().metric_values[0].metric_value),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                None
            }
        }
    }
}

async fn change(stream: &mut Streaming<IsActiveResponse>) -> bool {
    stream.message().await.unwrap().unwrap().result
}

#[test]
fn keda_hears_from_any_node_how_many_workers_a_pipeline_needs() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("scaled", json!({"partitions": 4})).await;
        let mut kedas = Keda::at_each(&world, &pipeline, &[]).await;
        let mut streams = Vec::new();
        for keda in &mut kedas {
            keda.until(0).await;
            let mut stream = keda.watch().await;
            assert!(!change(&mut stream).await);
            streams.push(stream);
        }

        // Nothing has been measured yet: 45 tasks of an assumed second, to be done in ten.
        let tasks = (0..45).map(|n| json!({"n": n, "hold": true}));
        pipeline.submit_all(tasks).await;
        for (keda, stream) in kedas.iter_mut().zip(&mut streams) {
            assert!(change(stream).await);
            keda.until(5).await;
        }
        // What waits while the pipeline is paused needs nobody.
        pipeline.post("/pause", &Value::Null).await;
        for (keda, stream) in kedas.iter_mut().zip(&mut streams) {
            assert!(!change(stream).await);
            keda.until(0).await;
        }
        pipeline.post("/resume", &Value::Null).await;
        for stream in &mut streams {
            assert!(change(stream).await);
        }

        // Each task that runs keeps a worker, however little is left to do.
        let mut worker = LedgerWorker::start(&world, &pipeline, "worker", 45);
        pipeline
            .until_view("all run", |view| view["counts"]["running"] == 45)
            .await;
        for keda in &mut kedas {
            keda.until(45).await;
        }
        worker.release().await;
        for (keda, stream) in kedas.iter_mut().zip(&mut streams) {
            assert!(!change(stream).await);
            keda.until(0).await;
        }
        drop(streams);
        world.stop().await;
    });
}

#[test]
fn a_wrong_trigger_is_told_what_is_wrong_with_it() {
    run(async {
        let keys = ["--api-key", "alice=alices-secret"];
        let mut world = World::start_with(&keys).await;
        let alice = world.api().with_key("alices-secret");
        let pipeline = Pipeline::create(&alice, "hers", json!({})).await;
        for (more, code, field) in [
            (vec![], Code::Unauthenticated, "scalerMetadata.apiKey: "),
            (
                vec![("apiKey", "not-hers")],
                Code::Unauthenticated,
                "scalerMetadata.apiKey: ",
            ),
            (
                vec![("apiKey", "alices-secret"), ("concurrency", "none")],
                Code::InvalidArgument,
                "scalerMetadata.concurrency: ",
            ),
            (
                vec![("apiKey", "alices-secret"), ("pipeline", "missing")],
                Code::NotFound,
                "there is no pipeline ",
            ),
        ] {
            for mut keda in Keda::at_each(&world, &pipeline, &more).await {
                let status = keda.client.is_active(keda.trigger.clone()).await.unwrap_err();
                assert_eq!(status.code(), code, "{status}");
                assert!(status.message().starts_with(field), "{status}");
            }
        }
        let named = [("apiKeyFromEnv", "alices-secret")];
        for mut keda in Keda::at_each(&world, &pipeline, &named).await {
            keda.until(0).await;
        }
        world.stop().await;
    });
}

/// The lines about queues that Prometheus finds at all nodes.
async fn queue_lengths(world: &World) -> Vec<String> {
    let mut lines = Vec::new();
    for node in &world.nodes {
        let url = node.server().metrics().unwrap();
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        assert!(text.ends_with("# EOF\n"), "{text}");
        let told = text
            .lines()
            .filter(|line| line.starts_with("server_scheduler_queue_length{"));
        lines.extend(told.map(str::to_owned));
    }
    lines.sort();
    lines
}

/// Waits until these are all the series there are, at all nodes together.
async fn until_queues(world: &World, wanted: &[String]) {
    let waiting = async {
        while queue_lengths(world).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_mins(1), waiting).await;
    assert!(waited.is_ok(), "{:?}", queue_lengths(world).await);
}

#[test]
fn prometheus_finds_the_length_of_each_queue_at_one_node() {
    run(async {
        let mut world = World::start_with(&["--metrics", "127.0.0.1:0"]).await;
        let long = world.pipeline("long", json!({"partitions": 4})).await;
        let empty = world.pipeline("empty", json!({"partitions": 4})).await;
        long.submit_all((0..7).map(|n| json!({"n": n}))).await;
        let series = |name: &str, length: u32| {
            format!(
                "server_scheduler_queue_length{{worker=\"{name}\",namespace=\"{APPLICATION}\",application=\"{APPLICATION}\",client=\"default\"}} {length}"
            )
        };
        until_queues(&world, &[series("empty", 0), series("long", 7)]).await;
        let deleted = empty
            .api
            .send(Method::DELETE, &empty.path, &Value::Null)
            .await
            .unwrap();
        assert!(deleted.status.is_success());
        // While shards move, as the topic goes, lengths may be unknown.
        until_queues(&world, &[series("long", 7)]).await;
        world.stop().await;
    });
}
