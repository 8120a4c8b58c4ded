//! KEDA's operator and its metrics adapter, as plain processes beside the cluster: what a `ScaledObject` says is really scaled.
//!
//! From none to one pod and back it is the operator that scales; between one and many it is the cluster's own autoscaler, which asks the
//! adapter through the API server.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::super::process::Record;
use super::build::keda_kinds;
use super::{keys, kubeconfig, objects};
use crate::Failed;

/// Where the cluster has what the adapter says.
pub(super) const METRICS: &str = "/apis/external.metrics.k8s.io/v1beta1";
/// The release with its objects.
const OBJECTS: &str = "keda-objects";

/// Tells the cluster of KEDA's kinds and of where its metrics are.
pub(crate) fn register(run: &Path) -> Result<(), Failed> {
    let adapter = Record::load(run, "keda-adapter").ok_or("keda-adapter has no port")?;
    let mut parts = vec![about(adapter.port(), &keys::authority(run)?)];
    for file in keda_kinds()? {
        parts.push(fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?);
    }
    objects::put(run, OBJECTS, &parts.join("\n---\n"))
}

/// Takes that away: a cluster whose metrics have nobody behind them deletes no namespace.
pub(crate) fn withdraw(run: &Path) -> Result<(), Failed> {
    objects::take_away(run, OBJECTS)
}

/// The aggregator reaches the adapter on loopback by a service that is only a name.
fn about(port: u16, authority: &str) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Namespace\n\
         metadata: {{name: keda}}\n\
         ---\n\
         apiVersion: v1\n\
         kind: Service\n\
         metadata: {{name: keda-metrics-apiserver, namespace: keda}}\n\
         spec: {{type: ExternalName, externalName: localhost, ports: [{{port: {port}}}]}}\n\
         ---\n\
         apiVersion: apiregistration.k8s.io/v1\n\
         kind: APIService\n\
         metadata: {{name: v1beta1.external.metrics.k8s.io}}\n\
         spec:\n  \
           service: {{name: keda-metrics-apiserver, namespace: keda, port: {port}}}\n  \
           group: external.metrics.k8s.io\n  \
           version: v1beta1\n  \
           groupPriorityMinimum: 100\n  \
           versionPriority: 100\n  \
           caBundle: {authority}\n"
    )
}

/// Tells the operator's command what it needs.
pub(super) fn operator(command: &mut Command, run: &Path, record: &Record) -> Result<(), Failed> {
    let [rpc, metrics, health] = record.ports[..] else {
        return Err("keda-operator has not its three ports".to_owned());
    };
    command
        .args([
            "--zap-log-level=info",
            "--zap-encoder=console",
            "--enable-cert-rotation=false",
        ])
        .arg(format!("--metrics-bind-address=127.0.0.1:{metrics}"))
        .arg(format!("--health-probe-bind-address=127.0.0.1:{health}"))
        .arg(format!("--metrics-service-bind-address=127.0.0.1:{rpc}"));
    environment(command, run);
    Ok(())
}

/// The same for the adapter, which asks the operator at that port.
pub(super) fn adapter(
    command: &mut Command,
    run: &Path,
    record: &Record,
    operator: u16,
) -> Result<(), Failed> {
    let [api, metrics] = record.ports[..] else {
        return Err("keda-adapter has not its two ports".to_owned());
    };
    let certificates = keys::of_keda(run);
    let file = |name: &str| certificates.join(name).display().to_string();
    let kubeconfig = kubeconfig(run).display().to_string();
    command
        .arg("--bind-address=127.0.0.1")
        .arg(format!("--secure-port={api}"))
        .arg(format!("--port={metrics}"))
        .arg(format!("--cert-dir={}", certificates.display()))
        .arg(format!("--tls-private-key-file={}", file("tls.key")))
        .arg(format!("--client-ca-file={}", file("ca.crt")))
        .arg(format!("--metrics-service-address=localhost:{operator}"));
    for flag in ["lister", "authentication", "authorization"] {
        command.arg(format!("--{flag}-kubeconfig={kubeconfig}"));
    }
    environment(command, run);
    Ok(())
}

fn environment(command: &mut Command, run: &Path) {
    command
        .env("KUBECONFIG", kubeconfig(run))
        .env("POD_NAMESPACE", "keda")
        .env("KEDA_CLUSTER_OBJECT_NAMESPACE", "keda")
        .env("WATCH_NAMESPACE", "");
}
