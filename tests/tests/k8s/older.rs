//! A chart that was made for another scheduler and scales itself: KEDA asks Prometheus, which asks the server how long the queue is.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::json;

use crate::pods::{ready, until_rollout, world};
use crate::world::{PIPELINES, World, eventually, led_to};

/// The chart of the existing kind that is deployed without pods elsewhere, as it is there.
const DEPLOYMENT: &str =
    include_str!("../../../scheduler-deploy/tests/helm/existing/templates/deployment.yaml");
const SCALED: &str =
    include_str!("../../../scheduler-deploy/tests/helm/existing/templates/scaledobject.yaml");
const SERVICE: &str = include_str!("../../../scheduler-deploy/tests/helm/existing/templates/service.yaml");
const VALUES: &str = include_str!("../../../scheduler-deploy/tests/helm/existing/values.yaml");

const TASK_SECONDS: u32 = 4;
const TASKS: usize = 16;
const MOST: u64 = 3;

/// A Prometheus of a test's own, which ends with it.
struct Prometheus {
    child: Child,
    url: String,
    log: std::path::PathBuf,
}

impl Prometheus {
    /// Asks this address every second for what it knows.
    async fn of(directory: &Path, metrics: &str) -> Self {
        let target = metrics.trim_start_matches("http://").trim_end_matches("/metrics");
        let configuration = json!({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "scheduler", "static_configs": [{"targets": [target]}]}]});
        // JSON is YAML.
        std::fs::write(directory.join("prometheus.yml"), configuration.to_string()).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let log = directory.join("prometheus.log");
        let file = std::fs::File::create(&log).unwrap();
        let child = Command::new(led_to("SCHEDULER_TEST_PROMETHEUS"))
            .arg(format!(
                "--config.file={}",
                directory.join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("prometheus").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        let mut prometheus = Self {
            child,
            url: format!("http://{address}"),
            log,
        };
        let ready = format!("{}/-/ready", prometheus.url);
        eventually(async || {
            let said = || std::fs::read_to_string(&prometheus.log).unwrap();
            assert!(
                prometheus.child.try_wait().unwrap().is_none(),
                "it ended: {}",
                said()
            );
            match reqwest::get(&ready).await {
                Ok(answer) if answer.status().is_success() => Ok(()),
                other => Err(format!("{other:?}: {}", said())),
            }
        })
        .await;
        prometheus
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn in_pods_a_chart_of_the_existing_kind_is_scaled_from_none_to_many_and_back_by_keda_over_prometheus() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = world(&[("--metrics", "127.0.0.1:0")]).await;
    let prometheus = Prometheus::of(directory.path(), world.metrics()).await;
    // What such a chart needs to run today: KEDA's API of now, and where things are here.
    let scaled = SCALED
        .replace("keda.k8s.io", "keda.sh")
        .replace("deploymentName:", "name:")
        .replace("http://prometheus:9090", &prometheus.url)
        .replace("cooldownPeriod: 30", "cooldownPeriod: 5");
    assert!(
        scaled.contains(&prometheus.url) && scaled.contains("scaleTargetRef: {name:"),
        "{scaled}"
    );
    let deployment = DEPLOYMENT.replace(
        "      containers:\n",
        "      nodeSelector: {type: real}\n      containers:\n",
    );
    let files = [
        ("values.yaml", VALUES),
        ("templates/deployment.yaml", &deployment),
        ("templates/scaledobject.yaml", &scaled),
        ("templates/service.yaml", SERVICE),
    ];
    let chart = world.chart("ocr", &files);
    let image = |name: &str| json!({"image": format!("workload-scheduler/{name}:0.1.0")});
    let new = json!({"name": "ocr", "chart": chart, "replicas": {"min": 0, "max": MOST},
        "pipeline": [{"executorName": "wget", "commands": [format!("sleep {TASK_SECONDS}")]}],
        "values": {"resourceQuota": {"enabled": false}, "autoScaling": {"enabled": true}, "replicaCount": {"min": 0, "max": MOST},
            "pipeline_agent": image("scheduler-worker"), "executor_wget": image("wget"), "executor_tesseract": image("tesseract")}});
    let created = world.api().post(PIPELINES, &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    until_rollout(&world, "ocr", ready(0)).await;

    let begun = Instant::now();
    let seconds = |since: Instant| since.elapsed().as_secs_f64();
    for _ in 0..TASKS {
        let task = world
            .api()
            .post(&World::pipeline("ocr"), &json!({}))
            .await
            .unwrap();
        assert_eq!(task.status, 202, "{}", task.body);
    }
    until_rollout(&world, "ocr", |rollout| rollout["wanted"] != 0).await;
    println!("prometheus: a worker wanted after {:.1} s", seconds(begun));
    until_rollout(&world, "ocr", ready(MOST)).await;
    println!("prometheus: {MOST} workers ready after {:.1} s", seconds(begun));
    eventually(async || {
        let path = format!("{}/tasks?state=succeeded&limit=100", World::pipeline("ocr"));
        let tasks = world.api().get(&path).await.unwrap();
        let count = tasks.body["items"].as_array().map_or(0, Vec::len);
        if count == TASKS {
            Ok(())
        } else {
            Err(format!("{count} tasks succeeded: {}", tasks.body))
        }
    })
    .await;
    println!(
        "prometheus: {TASKS} tasks of {TASK_SECONDS} s done after {:.1} s",
        seconds(begun)
    );
    let idle = Instant::now();
    until_rollout(&world, "ocr", ready(0)).await;
    println!(
        "prometheus: no worker wanted {:.1} s after the last task",
        seconds(idle)
    );
    let deleted = world.api().delete(&World::pipeline("ocr")).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    world.until_gone().await;
    world.stop().await;
}
