//! The variables that lead tests to what runs.

use std::path::Path;

use super::private::{
    HELM, KAFKA, KAFKA_CA, KAFKA_PASSWORD, KAFKA_TLS, KUBECONFIG, NODE, PROMETHEUS, REGISTRY, TIDB, TIDB_CA,
    TIDB_TLS,
};
use super::process::Record;
use super::{Service, helm, kafka, kube, prometheus, records, tidb};
use crate::Failed;

/// Each with its value.
pub(crate) fn addresses(run: &Path) -> Result<Vec<(&'static str, String)>, Failed> {
    let running = |service| {
        let mut records = records(run, &[service].into());
        records.retain(|record| record.running().is_some());
        records
    };
    let brokers = running(Service::Kafka);
    let at = |port: fn(&Record) -> Option<&u16>| {
        let ports = brokers.iter().filter_map(port);
        ports
            .map(|port| format!("127.0.0.1:{port}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let mut addresses = Vec::new();
    if !brokers.is_empty() {
        addresses.push((KAFKA, at(|record| record.ports.first())));
        let authority = kafka::keys(run).join("ca.crt");
        if authority.exists() {
            addresses.push((KAFKA_TLS, at(|record| record.ports.iter().rev().nth(1))));
            addresses.push((KAFKA_PASSWORD, at(|record| record.ports.last())));
            addresses.push((KAFKA_CA, authority.display().to_string()));
        }
    }
    if let Some(record) = running(Service::Tidb).first() {
        let address = format!("mysql://root@127.0.0.1:{}", record.port());
        addresses.push((TIDB, address.clone()));
        let authority = tidb::keys(run).join("ca.crt");
        if authority.exists() {
            addresses.push((TIDB_TLS, address));
            addresses.push((TIDB_CA, authority.display().to_string()));
        }
    }
    if !running(Service::Kube).is_empty() {
        addresses.push((KUBECONFIG, kube::kubeconfig(run).display().to_string()));
        addresses.push((HELM, helm::binary()?.display().to_string()));
    }
    if !running(Service::Keda).is_empty() {
        addresses.push((PROMETHEUS, prometheus::binary()?.display().to_string()));
    }
    if let (false, Some(node)) = (running(Service::Kubelet).is_empty(), kube::address(run)) {
        addresses.push((NODE, node));
    }
    if let Some(record) = running(Service::Registry).first() {
        addresses.push((REGISTRY, format!("127.0.0.1:{}", record.port())));
    }
    Ok(addresses)
}
