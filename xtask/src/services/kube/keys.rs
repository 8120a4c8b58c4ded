//! Certificates and keys of Kubernetes' servers and of those who talk to them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::cache::{make, write};
use super::super::keys::{self, certify, openssl, private};
use super::kubeconfig;
use crate::Failed;
use crate::run::output;

/// Who has a certificate: file, subject, and what it is for.
const CERTIFICATES: [(&str, &str, &str); 8] = [
    (
        "apiserver",
        "/CN=kube-apiserver",
        "subjectAltName=IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc\n\
         extendedKeyUsage=serverAuth\n",
    ),
    ("admin", "/O=system:masters/CN=admin", CLIENT),
    ("controllers", "/CN=system:kube-controller-manager", CLIENT),
    ("scheduler", "/CN=system:kube-scheduler", CLIENT),
    ("front-proxy", "/CN=front-proxy", CLIENT),
    (
        "kubelet-client",
        "/O=system:masters/CN=kube-apiserver-kubelet-client",
        CLIENT,
    ),
    // By this name a kubelet may act for the node `localhost`.
    ("kubelet", "/O=system:nodes/CN=system:node:localhost", CLIENT),
    (
        "keda/tls",
        "/CN=keda-operator",
        "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:keda-metrics-apiserver.keda.svc\n\
         extendedKeyUsage=serverAuth,clientAuth\n",
    ),
];
const CLIENT: &str = "extendedKeyUsage=clientAuth\n";

/// Where they lie.
pub(super) fn directory(run: &Path) -> PathBuf {
    run.join("kube-keys")
}

/// Where KEDA's are, by the names that it knows.
pub(super) fn of_keda(run: &Path) -> PathBuf {
    directory(run).join("keda")
}

/// The authority's certificate, as the cluster takes it.
pub(super) fn authority(run: &Path) -> Result<String, Failed> {
    let mut encode = Command::new("openssl");
    encode
        .current_dir(directory(run))
        .args(["base64", "-A", "-in", "ca.crt"]);
    output(encode)
}

/// Makes those that are missing, and what clients are told of a server at that port.
pub(super) fn make_all(run: &Path, port: u16) -> Result<(), Failed> {
    let keys = directory(run);
    // The last that is made: with it all are there.
    let whole = keys.join("accounts.pub");
    if !whole.exists() {
        make(&of_keda(run))?;
        keys::authority(&keys)?;
        for (name, subject, extension) in CERTIFICATES {
            certify(&keys, name, subject, extension)?;
        }
        let copied = fs::copy(keys.join("ca.crt"), of_keda(run).join("ca.crt"));
        copied.map_err(|error| format!("the authority's certificate cannot be copied: {error}"))?;
        let curve = ["-pkeyopt", "ec_paramgen_curve:P-256", "-out", "accounts.key"];
        openssl(&keys, &[&["genpkey", "-algorithm", "EC"], &curve])?;
        openssl(
            &keys,
            &[&["pkey", "-in", "accounts.key", "-pubout", "-out", "accounts.pub"]],
        )?;
    }
    for (path, name) in [
        (kubeconfig(run), "admin"),
        (keys.join("controllers.kubeconfig"), "controllers"),
        (keys.join("scheduler.kubeconfig"), "scheduler"),
        (keys.join("kubelet.kubeconfig"), "kubelet"),
    ] {
        write(&path, &config(&keys, name, port))?;
        private(&path)?;
    }
    Ok(())
}

fn config(keys: &Path, name: &str, port: u16) -> String {
    let file = |ending: &str| keys.join(format!("{name}.{ending}")).display().to_string();
    format!(
        "apiVersion: v1\nkind: Config\n\
         clusters: [{{name: loopback, cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority: \"{}\"}}}}]\n\
         users: [{{name: {name}, user: {{client-certificate: \"{}\", client-key: \"{}\"}}}}]\n\
         contexts: [{{name: loopback, context: {{cluster: loopback, user: {name}}}}}]\n\
         current-context: loopback\n",
        keys.join("ca.crt").display(),
        file("crt"),
        file("key"),
    )
}
