//! Programs that tests need and cargo does not bring.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failed;
use crate::run::run;
use crate::services::Service;

/// A program and the Debian package that has it.
const NEEDED: [(&str, &str); 11] = [
    ("cc", "build-essential"),
    ("curl", "curl"),
    ("perl", "perl"),
    ("sh", "dash"),
    ("bash", "bash"),
    ("sort", "coreutils"),
    ("tesseract", "tesseract-ocr"),
    ("wget", "wget"),
    ("valgrind", "valgrind"),
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
];

/// What Kafka is fetched with and runs on.
const FOR_KAFKA: [(&str, &str); 2] = [("java", "default-jre-headless"), ("mvn", "maven")];

/// What makes keys and certificates.
const FOR_KEYS: [(&str, &str); 1] = [("openssl", "openssl")];

/// Whether the program is in the path.
pub(crate) fn is_installed(program: &str) -> bool {
    installed(program).is_some()
}

/// Where the program is in the path.
pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|directory| directory.join(program));
    places.find(|place| place.is_file())
}

/// What makes this machine a node.
const FOR_KUBELET: [(&str, &str); 6] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("busybox", "busybox-static"),
    // The plugins themselves are in no path.
    ("../lib/cni/bridge", "containernetworking-plugins"),
];

/// Installs what is missing where that is possible, else says how.
pub(crate) fn ensure() -> Result<(), Failed> {
    install(missing, "")
}

fn absent(needed: &[(&str, &'static str)]) -> Vec<&'static str> {
    let absent = needed.iter().filter(|(program, _)| !is_installed(program));
    absent.map(|(_, package)| *package).collect()
}

/// The same for what keys are made with.
pub(crate) fn ensure_for_tls() -> Result<(), Failed> {
    install(|| absent(&FOR_KEYS), "")
}

/// The same for what the services are made with.
pub(crate) fn ensure_for_services(services: &BTreeSet<Service>) -> Result<(), Failed> {
    if services.contains(&Service::Kafka) {
        install(
            || absent(&FOR_KAFKA),
            "; or set SCHEDULER_TEST_KAFKA to the `host:port` of a Kafka that runs",
        )?;
    }
    if services.contains(&Service::Kube) {
        install(
            || absent(&FOR_KEYS),
            "; or set SCHEDULER_TEST_KUBECONFIG to the kubeconfig of a cluster that runs",
        )?;
    }
    if services.contains(&Service::Kubelet) {
        install(|| absent(&FOR_KUBELET), "")?;
    }
    // What Debian calls Go is too old in most of its releases: it is not installed, but asked for.
    let built = [
        (
            Service::Tidb,
            "TiDB is built",
            "SCHEDULER_TEST_TIDB to the `mysql://user@host:port` of a TiDB that runs",
        ),
        (
            Service::Kube,
            "Kubernetes and helm are built",
            "SCHEDULER_TEST_KUBECONFIG to the kubeconfig of a cluster that runs, and SCHEDULER_TEST_HELM to a helm",
        ),
        (
            Service::Registry,
            "the registry is built",
            "SCHEDULER_TEST_REGISTRY to the `host:port` of a registry that runs",
        ),
    ];
    for (service, what, otherwise) in built {
        if services.contains(&service) && !is_installed("go") {
            return Err(format!(
                "`go` is missing, with which {what}: install Go 1.26 or newer (https://go.dev/dl); or set {otherwise}"
            ));
        }
    }
    Ok(())
}

fn install(missing: impl Fn() -> Vec<&'static str>, otherwise: &str) -> Result<(), Failed> {
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let install = format!(
        "apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    );
    if !(is_root() && is_installed("apt-get")) {
        return Err(format!(
            "programs are missing that tests need; on Debian: sudo {install}{otherwise}"
        ));
    }
    println!("missing: {}", packages.join(" "));
    // The lists may be out of date or absent; if they cannot be had, those that are there may do.
    if let Err(problem) = update() {
        println!("{problem}");
    }
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(&packages);
    run(apt_get(&arguments))?;
    match missing().as_slice() {
        [] => Ok(()),
        left => Err(format!(
            "still missing after `{install}`: {}{otherwise}",
            left.join(" ")
        )),
    }
}

fn missing() -> Vec<&'static str> {
    let mut packages = absent(&NEEDED);
    if !packages.contains(&"tesseract-ocr") && !reads_english() {
        packages.push("tesseract-ocr-eng");
    }
    packages
}

/// Tesseract without a language reads nothing.
fn reads_english() -> bool {
    let listed = Command::new("tesseract")
        .arg("--list-langs")
        .stdin(Stdio::null())
        .output();
    listed.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .any(|line| line == "eng")
    })
}

/// Renews the lists of packages.
pub(crate) fn update() -> Result<(), Failed> {
    run(apt_get(&["update", "-q"]))
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    command
}

/// Whether everything may be done.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    Path::new("/proc/self").metadata().is_ok_and(|own| own.uid() == 0)
}
