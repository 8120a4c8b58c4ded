//! Nodes that kwok plays.

use std::path::Path;

use super::objects;
use crate::Failed;

/// How many there are.
const NODES: u32 = 3;
/// Only nodes with it are kwok's.
pub(super) const ANNOTATION: &str = "kwok.x-k8s.io/node=fake";

/// Makes the nodes, or leaves them as they are.
pub(crate) fn register(run: &Path) -> Result<(), Failed> {
    let nodes: Vec<String> = (1..=NODES).map(node).collect();
    objects::put(run, "kwok-nodes", &nodes.join("---\n"))
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
