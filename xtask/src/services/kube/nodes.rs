//! Nodes that kwok plays, put into the cluster as a chart of helm.

use std::path::Path;
use std::process::Command;

use super::super::cache::{self, make, write};
use super::super::helm;
use super::kubeconfig;
use crate::Failed;

/// How many there are.
const NODES: u32 = 3;
/// Only nodes with it are kwok's.
pub(super) const ANNOTATION: &str = "kwok.x-k8s.io/node=fake";

/// Makes the nodes, or leaves them as they are.
pub(crate) fn register(run: &Path) -> Result<(), Failed> {
    let chart = run.join("kwok-nodes");
    make(&chart.join("templates"))?;
    write(
        &chart.join("Chart.yaml"),
        "apiVersion: v2\nname: kwok-nodes\nversion: 0.1.0\n",
    )?;
    let nodes: Vec<String> = (1..=NODES).map(node).collect();
    write(&chart.join("templates/nodes.yaml"), &nodes.join("---\n"))?;
    let mut command = Command::new(helm::binary()?);
    command
        .args(["upgrade", "--install", "kwok-nodes"])
        .arg(&chart)
        .args(["--namespace", "kube-system", "--kubeconfig"])
        .arg(kubeconfig(run));
    for (variable, directory) in [
        ("HELM_CACHE_HOME", "cache"),
        ("HELM_CONFIG_HOME", "config"),
        ("HELM_DATA_HOME", "data"),
    ] {
        command.env(variable, chart.join(directory));
    }
    cache::run(command, &run.join("kwok-nodes.log"))
}

fn node(number: u32) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Node\n\
         metadata:\n  \
           name: kwok-{number}\n  \
           annotations: {{kwok.x-k8s.io/node: fake, node.alpha.kubernetes.io/ttl: \"0\"}}\n  \
           labels: {{type: kwok, kubernetes.io/hostname: kwok-{number}, kubernetes.io/os: linux, kubernetes.io/arch: amd64}}\n\
         status:\n  \
           allocatable: {{cpu: \"32\", memory: 256Gi, pods: \"1000\"}}\n  \
           capacity: {{cpu: \"32\", memory: 256Gi, pods: \"1000\"}}\n"
    )
}
