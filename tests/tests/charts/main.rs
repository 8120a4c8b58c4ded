//! The charts of this repository, by the real helm and a real API server of Kubernetes.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something unexpected happens"
)]

mod api_server;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::CommandFactory as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use api_server::ApiServer;

/// What it takes to write a pipeline.
const TWENTY_LINES: &str = r#"
pipeline:
  - executor: wget
    timeoutSeconds: 60
    commands: ["wget --output-document={{pipe}}/page {{url}}"]
  - executor: count
    commands: ["wc -w < {{pipe}}/page"]
params:
  required: [url]
  properties:
    url: { type: string, pattern: "^https?://", maxLength: 2048 }
replicas: { min: 0, max: 8 }
concurrency: 2
autoscaling: { enabled: true, targetSeconds: 30 }
executors:
  - name: wget
    image: tools/wget:1
    env: { HTTPS_PROXY: "http://proxy:3128" }
  - name: count
    image: tools/count:1
    inject: false
scheduler: { application: pages, pipeline: words, apiKeySecret: key }
"#;

/// Many nodes, with everything that there is to say.
const MANY: &str = r#"
replicas: 3
kafka:
  brokers: kafka-0:9093,kafka-1:9093
  replication: 3
  properties: { security.protocol: SASL_SSL }
  propertiesSecret: kafka
  topicSettings: { min.insync.replicas: "2" }
  tlsSecret: kafka-tls
  clientCertificate: true
tidb: { urlSecret: tidb, tlsSecret: tidb-tls, connections: 16 }
cluster: { name: prod, secret: cluster }
apiKeysSecret: keys
antiAffinity: hard
deployer: helm
env: { SCHEDULER_PARTITIONS: "4" }
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a variable of the tests leads to.
fn named(variable: &str, what: &str) -> OsString {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty());
    value.unwrap_or_else(|| {
        panic!("{variable} does not name {what}: run the tests by `cargo xtask test`, which provides one, or set it to your own")
    })
}

/// A chart of this repository, and values laid over its own.
struct Chart {
    path: &'static str,
    directory: TempDir,
}

impl Chart {
    fn new(path: &'static str, values: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("values.yaml"), values).unwrap();
        Self { path, directory }
    }

    fn helm(&self, before: &[&str], after: &[&str]) -> Output {
        let mut command = Command::new(named("SCHEDULER_TEST_HELM", "the helm CLI"));
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, self.directory.path().join("helm"));
        }
        command.args(before).arg(root().join(self.path));
        command
            .arg("--values")
            .arg(self.directory.path().join("values.yaml"));
        command.args(after).output().unwrap()
    }

    /// What it renders to.
    fn objects(&self) -> Vec<Value> {
        let output = self.helm(&["template", "name"], &["--namespace", "place"]);
        assert!(output.status.success(), "{}: {}", self.path, said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        let documents = serde_norway::Deserializer::from_str(&text);
        documents
            .map(|document| <Value as serde::Deserialize>::deserialize(document).unwrap())
            .filter(|object| !object.is_null())
            .collect()
    }

    fn object(&self, kind: &str) -> Value {
        let objects = self.objects();
        let found = objects.iter().find(|object| object["kind"] == kind);
        found
            .cloned()
            .unwrap_or_else(|| panic!("{} has no {kind}", self.path))
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn all() -> Vec<Chart> {
    vec![
        Chart::new("charts/pipeline", TWENTY_LINES),
        Chart::new("charts/workload-scheduler", ""),
        Chart::new("charts/workload-scheduler", MANY),
        Chart::new("examples/charts/ocr", ""),
        Chart::new("examples/charts/coreutils", ""),
    ]
}

#[test]
fn helm_finds_nothing_wrong_with_any_chart() {
    for chart in all() {
        let output = chart.helm(&["lint", "--strict"], &[]);
        assert!(output.status.success(), "{}: {}", chart.path, said(&output));
    }
}

/// The API server knows each field of each kind and refuses others; of kinds that are not its own the tests below speak.
#[test]
fn the_api_server_takes_every_object() {
    let server = ApiServer::new();
    for chart in all() {
        for object in chart.objects() {
            if let Some(answer) = server.says(&object) {
                assert_eq!(answer["kind"], object["kind"], "{}: {answer}", chart.path);
            }
        }
    }
    let wrong = Chart::new("examples/charts/ocr", "tolerations: [{kee: a}]").object("Deployment");
    let answer = server.says(&wrong).unwrap();
    assert_eq!(answer["kind"], "Status");
    assert!(answer["message"].as_str().unwrap().contains("kee"), "{answer}");
}

fn names(list: &Value) -> Vec<&str> {
    let items = list.as_array().into_iter().flatten();
    items.map(|item| item["name"].as_str().unwrap()).collect()
}

/// The variables of a container that have a value here and now.
fn environment(container: &Value) -> Vec<(String, String)> {
    let variables = container["env"].as_array().unwrap().iter();
    variables
        .filter_map(|variable| {
            let value = variable["value"].as_str()?;
            Some((variable["name"].as_str().unwrap().to_owned(), value.to_owned()))
        })
        .collect()
}

#[test]
fn twenty_lines_of_values_make_a_pipeline() {
    let chart = Chart::new("charts/pipeline", TWENTY_LINES);
    let deployment = chart.object("Deployment");
    assert!(
        deployment["spec"]["replicas"].is_null(),
        "KEDA says how many there are"
    );
    assert_eq!(deployment["spec"]["progressDeadlineSeconds"], 600);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(names(&pod["containers"]), ["pipeline-agent"]);
    let beside = &pod["initContainers"];
    assert_eq!(
        names(beside),
        ["install-executor", "executor-wget", "executor-count"]
    );
    // They live until the agent has ended its tasks.
    assert_eq!(beside[1]["restartPolicy"], "Always");
    assert_eq!(beside[2]["restartPolicy"], "Always");
    assert_eq!(beside[1]["command"], json!(["/executor/command-executor"]));
    assert!(beside[2]["command"].is_null(), "its image has an entry point");
    assert!(environment(&beside[1]).contains(&("HTTPS_PROXY".to_owned(), "http://proxy:3128".to_owned())));
    for container in beside.as_array().unwrap()[1..]
        .iter()
        .chain(pod["containers"].as_array().unwrap())
    {
        let mounts = names(&container["volumeMounts"]).len();
        assert!(
            mounts >= 1 && container["volumeMounts"][0]["mountPath"] == "/mnt/pipe",
            "{container}"
        );
    }
    let map = chart.object("ConfigMap");
    assert_eq!(map["metadata"]["labels"]["workload-scheduler/pipeline"], "true");
    let definition: Value = serde_norway::from_str(map["data"]["pipeline.yaml"].as_str().unwrap()).unwrap();
    let values: Value = serde_norway::from_str(TWENTY_LINES).unwrap();
    assert_eq!(
        definition,
        json!({"pipeline": values["pipeline"], "params": values["params"]})
    );

    let scaled = chart.object("ScaledObject");
    assert_eq!(scaled["apiVersion"], "keda.sh/v1alpha1");
    assert_eq!(
        scaled["spec"],
        json!({
            "scaleTargetRef": {"name": "name", "envSourceContainerName": "pipeline-agent"},
            "minReplicaCount": 0,
            "maxReplicaCount": 8,
            "pollingInterval": 5,
            "cooldownPeriod": 30,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {
                "scaleUp": {"stabilizationWindowSeconds": 0},
                "scaleDown": {"stabilizationWindowSeconds": 30},
            }}},
            "triggers": [{"type": "external-push", "metadata": {
                "scalerAddress": "workload-scheduler.workload-scheduler:50050",
                "application": "pages",
                "pipeline": "words",
                "concurrency": "2",
                "targetSeconds": "30",
                "taskSeconds": "1",
                "apiKeyFromEnv": "SCHEDULER_API_KEY",
            }}],
        })
    );
    assert!(names(&pod["containers"][0]["env"]).contains(&"SCHEDULER_API_KEY"));
}

#[test]
fn a_scheduler_that_deploys_a_pipeline_says_itself_where_it_is_and_which_pipeline_that_is() {
    let told = r#"
global: { scheduler: { url: "http://10.0.0.1:50050", client: acme, application: shop, pipeline: words,
  replicas: { min: 2, max: 5 }, apiKeySecret: { name: own, key: api-key } } }
autoscaling: { enabled: true }
"#;
    let chart = Chart::new("examples/charts/ocr", told);
    let agent = &chart.object("Deployment")["spec"]["template"]["spec"]["containers"][0];
    let variables = environment(agent);
    for (name, value) in [
        ("SCHEDULER_URL", "http://10.0.0.1:50050"),
        ("SCHEDULER_APPLICATION", "shop"),
        ("SCHEDULER_PIPELINE", "words"),
    ] {
        let one = (name.to_owned(), value.to_owned());
        assert!(variables.contains(&one), "{name}: {variables:?}");
    }
    let spec = &chart.object("ScaledObject")["spec"];
    assert_eq!(
        (&spec["minReplicaCount"], &spec["maxReplicaCount"]),
        (&json!(2), &json!(5))
    );
    let metadata = &spec["triggers"][0]["metadata"];
    assert_eq!(metadata["scalerAddress"], "10.0.0.1:50050");
    assert_eq!(
        (&metadata["application"], &metadata["pipeline"]),
        (&json!("shop"), &json!("words"))
    );
}

#[test]
fn the_example_uses_the_chart_for_pipelines_as_it_is() {
    let ocr = Chart::new("examples/charts/ocr", "");
    let pod = &ocr.object("Deployment")["spec"]["template"]["spec"];
    assert_eq!(
        names(&pod["initContainers"]),
        ["install-executor", "executor-wget", "executor-tesseract"]
    );
    let copy = files(&root().join("examples/charts/ocr/charts/pipeline"));
    assert_eq!(
        copy,
        files(&root().join("charts/pipeline")),
        "examples/charts/ocr/charts/pipeline is a copy of charts/pipeline: copy it anew"
    );
}

fn files(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(next).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                left.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(directory).unwrap().to_owned();
                found.push((name, std::fs::read_to_string(entry.path()).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The command line that says what the environment says, of those variables that begin with `prefix`. All of them must be the program's.
fn as_arguments(program: &clap::Command, environment: &[(String, String)], prefix: &str) -> Vec<String> {
    let mut line = vec![program.get_name().to_owned()];
    for (name, value) in environment.iter().filter(|(name, _)| name.starts_with(prefix)) {
        let option = program.get_arguments().find(|option| {
            let variable = option.get_env().and_then(|variable| variable.to_str());
            variable == Some(name)
        });
        let option = option.unwrap_or_else(|| panic!("{} has no {name}", program.get_name()));
        line.push(format!("--{}={value}", option.get_long().unwrap()));
    }
    line
}

#[test]
fn programs_understand_what_charts_tell_them() {
    for values in ["", MANY] {
        let chart = Chart::new("charts/workload-scheduler", values);
        let container = &chart.object("StatefulSet")["spec"]["template"]["spec"]["containers"][0];
        let program = scheduler_server::Arguments::command();
        let mut line = as_arguments(&program, &environment(container), "SCHEDULER_");
        // From secrets.
        if values == MANY {
            line.extend(
                ["--tidb=mysql://u@h:4000/d", "--cluster-secret=0123456789abcdef"].map(str::to_owned),
            );
        }
        let line: Vec<String> = line
            .iter()
            .map(|word| word.replace("$(KAFKA_SECRET_PROPERTIES)", "sasl.username=u,sasl.password=p"))
            .collect();
        let arguments = <scheduler_server::Arguments as clap::Parser>::try_parse_from(&line).unwrap();
        assert!(arguments.metrics.is_some());
        if values == MANY {
            let kafka = arguments.cluster.kafka_config("kafka-0:9093", 1);
            let properties: BTreeSet<&str> = kafka.properties.iter().map(|(name, _)| name.as_str()).collect();
            assert!(
                properties.is_superset(&["security.protocol", "ssl.ca.location", "sasl.password"].into())
            );
            assert_eq!(kafka.replication, 3);
        }
    }
    for chart in [
        Chart::new("charts/pipeline", TWENTY_LINES),
        Chart::new("examples/charts/coreutils", ""),
    ] {
        let pod = &chart.object("Deployment")["spec"]["template"]["spec"];
        let agent = environment(&pod["containers"][0]);
        let line = as_arguments(&scheduler_worker::Arguments::command(), &agent, "SCHEDULER_");
        let arguments = <scheduler_worker::Arguments as clap::Parser>::try_parse_from(line).unwrap();
        assert_eq!(arguments.all_executors(agent).unwrap().len(), 2);
    }
    let pod = &Chart::new("charts/pipeline", TWENTY_LINES).object("Deployment")["spec"]["template"]["spec"];
    let executor = as_arguments(
        &command_executor::Arguments::command(),
        &environment(&pod["initContainers"][1]),
        "COMMAND_EXECUTOR_",
    );
    <command_executor::Arguments as clap::Parser>::try_parse_from(executor).unwrap();
    let install = pod["initContainers"][0]["args"].as_array().unwrap().iter();
    let install = ["command-executor"]
        .into_iter()
        .chain(install.map(|word| word.as_str().unwrap()));
    let install = <command_executor::Arguments as clap::Parser>::try_parse_from(install).unwrap();
    assert_eq!(
        install.install.as_deref(),
        Some(Path::new("/executor/command-executor"))
    );
}

#[test]
fn one_node_has_a_volume_and_many_have_none_and_spread() {
    let one = Chart::new("charts/workload-scheduler", "").object("StatefulSet");
    assert_eq!(one["spec"]["volumeClaimTemplates"][0]["metadata"]["name"], "data");
    let many = Chart::new("charts/workload-scheduler", MANY);
    let set = many.object("StatefulSet");
    assert!(set["spec"]["volumeClaimTemplates"].is_null());
    assert_eq!(
        (&set["spec"]["replicas"], &set["spec"]["podManagementPolicy"]),
        (&json!(3), &json!("Parallel"))
    );
    let affinity = &set["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"];
    assert!(affinity["requiredDuringSchedulingIgnoredDuringExecution"].is_array());
    assert_eq!(many.object("PodDisruptionBudget")["spec"]["maxUnavailable"], 1);
    let monitored = Chart::new(
        "charts/workload-scheduler",
        "serviceMonitor: {enabled: true, labels: {release: p}}",
    );
    let monitor = monitored.object("ServiceMonitor");
    assert_eq!(monitor["metadata"]["labels"]["release"], "p");
    // It finds the service with the metrics, whose labels say so.
    let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    let services = monitored.objects();
    let found = services.iter().filter(|object| {
        let labels = &object["metadata"]["labels"];
        object["kind"] == "Service" && wanted.iter().all(|(name, value)| labels[name] == *value)
    });
    let ports: Vec<_> = found
        .flat_map(|service| names(&service["spec"]["ports"]))
        .collect();
    assert_eq!(ports, ["grpc", "metrics"]);
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], "metrics");
}

#[test]
fn wrong_values_are_refused_by_name() {
    const STEP: &str = "pipeline: [{executor: a, commands: [ls]}]\n";
    let one = |more: &str| -> &'static str { format!("{STEP}{more}").leak() };
    for (chart, values, problem) in [
        ("charts/pipeline", "", "pipeline: has no steps"),
        (
            "charts/pipeline",
            one(""),
            "pipeline[0].executor: a is none of the executors",
        ),
        ("charts/pipeline", one("executors: [{name: a}]"), "image"),
        (
            "charts/pipeline",
            one("executors: [{name: a, image: i}, {name: a, image: i}]"),
            "executors[1].name: a is there twice",
        ),
        (
            "charts/pipeline",
            one("executors: [{name: a, image: i}]\nreplicas: {min: 3, max: 2}"),
            "replicas.min: is 3",
        ),
        (
            "charts/pipeline",
            one("executors: [{name: a, image: i}]\nreplica: 2"),
            "replica",
        ),
        (
            "charts/pipeline",
            one("scheduler: {url: 'scheduler:50050'}"),
            "url",
        ),
        (
            "examples/charts/ocr",
            "executors: []",
            "pipeline[0].executor: wget is none of the executors",
        ),
        ("charts/workload-scheduler", "replicas: 2", "replicas: is 2"),
        (
            "charts/workload-scheduler",
            "kafka: {brokers: 'a:1'}",
            "tidb.urlSecret: is missing",
        ),
        (
            "charts/workload-scheduler",
            "tidb: {urlSecret: a}",
            "kafka.brokers: is missing",
        ),
        (
            "charts/workload-scheduler",
            "kafka: {brokers: 'a:1'}\ntidb: {urlSecret: a}",
            "cluster.secret: is missing",
        ),
        (
            "charts/workload-scheduler",
            "kafka: {brokers: somewhere}",
            "brokers",
        ),
        ("charts/workload-scheduler", "antiAffinity: maybe", "antiAffinity"),
        ("charts/workload-scheduler", "storrage: {}", "storrage"),
    ] {
        let output = Chart::new(chart, values).helm(&["template", "name"], &[]);
        assert!(!output.status.success(), "{chart} takes {values}");
        assert!(said(&output).contains(problem), "{values}: {}", said(&output));
    }
}
