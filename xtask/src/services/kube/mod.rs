//! Kubernetes on loopback: etcd and the API server, and, where pods are wanted, the controllers, the scheduler, and nodes that are played.
//!
//! Without [`Service::Nodes`](super::Service) objects are kept and guarded as in any cluster, and nothing acts on them. With it deployments
//! get pods, and kwok says of those that they run; nothing runs in them. With [`Service::Kubelet`](super::Service) this machine is a node
//! too, on which they run, and with [`Service::Keda`](super::Service) they are scaled.

mod build;
mod images;
mod keda;
mod keys;
mod nodes;
mod objects;
mod real;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use self::build::Part;
use super::process::Record;
use super::tidb::answers;
use crate::Failed;

pub(crate) use self::images::Image;
pub(crate) use self::keda::withdraw as withdraw_keda;
pub(crate) use self::nodes::register as register_nodes;
pub(crate) use self::real::{address, check as check_node, clear, end_containers, load};

/// A server of the control plane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Server {
    /// Its name among the services.
    pub(crate) name: &'static str,
    /// Its ports as they are documented, the one for clients first.
    pub(crate) usual_ports: &'static [u16],
    part: Part,
}

/// What keeps objects.
pub(crate) const CORE: [Server; 2] = [
    Server {
        name: "etcd",
        usual_ports: &[12_379, 12_380],
        part: Part::Etcd,
    },
    Server {
        name: "kube-apiserver",
        usual_ports: &[16_443],
        part: Part::Apiserver,
    },
];

/// What acts on them.
pub(crate) const NODES: [Server; 3] = [
    Server {
        name: "kube-controller-manager",
        usual_ports: &[16_257],
        part: Part::ControllerManager,
    },
    Server {
        name: "kube-scheduler",
        usual_ports: &[16_259],
        part: Part::Scheduler,
    },
    Server {
        name: "kwok",
        usual_ports: &[16_247],
        part: Part::Kwok,
    },
];

/// What makes this machine a node. containerd is the first to come and the last to go.
pub(crate) const KUBELET: [Server; 2] = [
    Server {
        name: CONTAINERD,
        // For the output of containers.
        usual_ports: &[16_251],
        part: Part::Containerd,
    },
    Server {
        name: "kubelet",
        usual_ports: &[16_250, 16_248],
        part: Part::Kubelet,
    },
];
/// What holds containers, which do not end with it.
pub(crate) const CONTAINERD: &str = "containerd";

/// What scales deployments.
pub(crate) const KEDA: [Server; 2] = [
    Server {
        name: "keda-operator",
        usual_ports: &[19_666, 18_082, 18_083],
        part: Part::KedaOperator,
    },
    Server {
        name: "keda-adapter",
        usual_ports: &[18_443, 18_084],
        part: Part::KedaAdapter,
    },
];

/// Builds what is missing of these, and of what they need.
pub(crate) fn fetch(servers: &[Server]) -> Result<(), Failed> {
    for server in servers {
        server.part.binary()?;
        match server.part {
            Part::Kwok => drop(build::stages()?),
            Part::KedaOperator => drop(build::keda_kinds()?),
            _ => (),
        }
    }
    Ok(())
}

/// Where clients find the key of an administrator.
pub(crate) fn kubeconfig(run: &Path) -> PathBuf {
    run.join("kubeconfig")
}

impl Server {
    pub(crate) fn version(self) -> &'static str {
        self.part.version()
    }

    /// What identifies the process: an argument with a path in the run directory.
    pub(crate) fn mark(self, run: &Path) -> String {
        let keys = keys::directory(run);
        match self.part {
            Part::Etcd => format!("--data-dir={}", run.join("etcd-data").display()),
            Part::Apiserver => format!("--tls-cert-file={}", keys.join("apiserver.crt").display()),
            Part::ControllerManager => {
                format!("--kubeconfig={}", keys.join("controllers.kubeconfig").display())
            }
            Part::Scheduler => format!("--kubeconfig={}", keys.join("scheduler.kubeconfig").display()),
            Part::Kwok => format!("--kubeconfig={}", kubeconfig(run).display()),
            Part::Containerd => real::configuration(run).display().to_string(),
            Part::Kubelet => format!("--kubeconfig={}", keys.join("kubelet.kubeconfig").display()),
            Part::KedaOperator => format!("--cert-dir={}", keys::of_keda(run).display()),
            Part::KedaAdapter => {
                format!("--tls-cert-file={}", keys::of_keda(run).join("tls.crt").display())
            }
        }
    }

    /// Starts it, unless it runs. `beside` has the records of all servers.
    pub(crate) fn start(self, run: &Path, record: &mut Record, beside: &[Record]) -> Result<(), Failed> {
        if record.running().is_some() {
            return Ok(());
        }
        let port = |name: &str, which: usize| {
            let found = beside.iter().find(|record| record.name == name);
            found
                .and_then(|record| record.ports.get(which).copied())
                .ok_or_else(|| format!("{name} has no port"))
        };
        let mut command = Command::new(self.part.binary()?);
        if self.part == Part::Containerd {
            command.arg("--config");
        }
        command.arg(&record.mark);
        match self.part {
            Part::Etcd => {
                let url = |port: u16| format!("http://127.0.0.1:{port}");
                let (client, peer) = (url(record.ports[0]), url(record.ports[1]));
                // Its data need not outlive the machine.
                command.args(["--name=only", "--unsafe-no-fsync", "--log-level=warn"]);
                for (flag, value) in [
                    ("--listen-client-urls", &client),
                    ("--advertise-client-urls", &client),
                    ("--listen-peer-urls", &peer),
                    ("--initial-advertise-peer-urls", &peer),
                    ("--initial-cluster", &format!("only={peer}")),
                ] {
                    command.arg(format!("{flag}={value}"));
                }
            }
            Part::Apiserver => {
                keys::make_all(run, record.port())?;
                let etcd = port("etcd", 0)?;
                command.args(apiserver_arguments(run, record.port(), etcd));
            }
            Part::ControllerManager => {
                let keys = keys::directory(run);
                let file = |name: &str| keys.join(name).display().to_string();
                command
                    .arg("--bind-address=127.0.0.1")
                    .arg(format!("--secure-port={}", record.port()))
                    .args(["--leader-elect=false", "--use-service-account-credentials=true"])
                    .arg(format!(
                        "--service-account-private-key-file={}",
                        file("accounts.key")
                    ))
                    .arg(format!("--root-ca-file={}", file("ca.crt")))
                    .arg(format!("--cluster-signing-cert-file={}", file("ca.crt")))
                    .arg(format!("--cluster-signing-key-file={}", file("ca.key")))
                    .arg("--horizontal-pod-autoscaler-sync-period=2s")
                    .arg("--horizontal-pod-autoscaler-downscale-stabilization=10s");
            }
            Part::Scheduler => {
                command
                    .arg("--bind-address=127.0.0.1")
                    .arg(format!("--secure-port={}", record.port()))
                    .arg("--leader-elect=false");
            }
            Part::Kwok => {
                let stages = build::stages()?;
                command
                    .arg(format!("--config={}", stages.display()))
                    .args(["--node-lease-duration-seconds=40", "--manage-all-nodes=false"])
                    .arg(format!(
                        "--manage-nodes-with-annotation-selector={}",
                        nodes::ANNOTATION
                    ))
                    .args(["--cidr=10.200.0.1/16", "--node-ip=127.0.0.1"])
                    .arg(format!("--node-port={}", record.port()))
                    .arg(format!("--server-address=127.0.0.1:{}", record.port()));
            }
            Part::Containerd => real::prepare(run, record, port("kubelet", 0)?, port("kube-apiserver", 0)?)?,
            Part::Kubelet => real::kubelet(&mut command, run, record)?,
            Part::KedaOperator => {
                keda::register(run)?;
                keda::operator(&mut command, run, record)?;
            }
            Part::KedaAdapter => keda::adapter(&mut command, run, record, port("keda-operator", 0)?)?,
        }
        record.start(run, command)
    }

    /// Whether it answers.
    pub(crate) fn is_up(self, run: &Path, record: &Record) -> bool {
        match self.part {
            Part::Etcd => answers(record.port(), "/health"),
            Part::Kwok => answers(record.port(), "/healthz"),
            Part::Apiserver => answers_over_tls(record.port(), "/readyz", Some(&keys::directory(run))),
            Part::Containerd => real::is_up(run),
            Part::Kubelet => answers(record.ports.get(1).copied().unwrap_or_default(), "/healthz"),
            Part::KedaOperator => answers(record.ports.get(2).copied().unwrap_or_default(), "/readyz"),
            // It is asked by the API server alone.
            Part::KedaAdapter => Record::load(run, "kube-apiserver")
                .is_some_and(|api| answers_over_tls(api.port(), keda::METRICS, Some(&keys::directory(run)))),
            // Their certificates are their own.
            Part::ControllerManager | Part::Scheduler => answers_over_tls(record.port(), "/healthz", None),
        }
    }
}

fn apiserver_arguments(run: &Path, port: u16, etcd: u16) -> Vec<String> {
    let keys = keys::directory(run);
    let file = |name: &str| keys.join(name).display().to_string();
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        "--advertise-address=127.0.0.1".to_owned(),
        // Loopback may not stand in an object of endpoints.
        "--endpoint-reconciler-type=none".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("accounts.pub")),
        format!("--service-account-signing-key-file={}", file("accounts.key")),
        "--kubelet-preferred-address-types=Hostname,InternalIP".to_owned(),
        format!("--kubelet-client-certificate={}", file("kubelet-client.crt")),
        format!("--kubelet-client-key={}", file("kubelet-client.key")),
        format!("--requestheader-client-ca-file={}", file("ca.crt")),
        "--requestheader-allowed-names=front-proxy".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--proxy-client-cert-file={}", file("front-proxy.crt")),
        format!("--proxy-client-key-file={}", file("front-proxy.key")),
    ]
}

/// Whether it answers a request with 200; the health of Kubernetes' servers is told to everybody. With `keys` the certificate is checked against
/// the authority there, and an administrator asks.
fn answers_over_tls(port: u16, path: &str, keys: Option<&Path>) -> bool {
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-quiet", "-connect"])
        .arg(format!("127.0.0.1:{port}"));
    if let Some(keys) = keys {
        for (flag, file) in [
            ("-CAfile", "ca.crt"),
            ("-cert", "admin.crt"),
            ("-key", "admin.key"),
        ] {
            command.arg(flag).arg(keys.join(file));
        }
        command.arg("-verify_return_error");
    }
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    let asked = child
        .stdin
        .as_mut()
        .is_some_and(|stdin| write!(stdin, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").is_ok());
    // It ends when the server has closed the connection, which HTTP/1.0 makes it do.
    let answer = child.wait_with_output();
    asked
        && answer.is_ok_and(|answer| {
            answer.stdout.starts_with(b"HTTP/1.0 200") || answer.stdout.starts_with(b"HTTP/1.1 200")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_is_known_by_something_of_its_run_directory() {
        let run = Path::new("/run/x");
        let all = [&CORE[..], &NODES, &KUBELET, &KEDA].concat();
        let marks: Vec<String> = all.iter().map(|server| server.mark(run)).collect();
        assert!(marks.iter().all(|mark| mark.contains("/run/x/")), "{marks:?}");
        let distinct: std::collections::BTreeSet<_> = marks.iter().collect();
        assert_eq!(distinct.len(), 9);
    }

    #[test]
    fn the_api_server_finds_etcd_and_its_keys() {
        let arguments = apiserver_arguments(Path::new("/run/x"), 6443, 2379);
        for argument in [
            "--etcd-servers=http://127.0.0.1:2379",
            "--secure-port=6443",
            "--client-ca-file=/run/x/kube-keys/ca.crt",
        ] {
            assert!(arguments.iter().any(|one| one == argument), "{argument}");
        }
    }
}
