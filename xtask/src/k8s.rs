//! The tests of charts where pods run: a cluster of one real node and some that are played, KEDA and a registry; images are made of this machine's
//! own tools, with the agent and the executor as the images for users have them: static programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{binaries, root, run as execute};
use crate::services::Service;
use crate::services::helm::{self, Line};
use crate::services::kube::{self, Image};
use crate::services::{HELM, Private};
use crate::test::{PROGRAMS, Pass, with};
use crate::{Failed, tools};

/// As the charts call them without being told. A registry that is not named is Docker's.
const PREFIX: &str = "docker.io/workload-scheduler";
const VERSION: &str = "0.1.0";
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    tools::ensure()?;
    let services = &[
        Service::Kube,
        Service::Nodes,
        Service::Kubelet,
        Service::Keda,
        Service::Registry,
    ];
    // A cluster that was there before has the images already.
    let prepare = |services: &Private| match kube::address(services.run()) {
        Some(_) => give_images(services.run()),
        None => Ok(()),
    };
    // Of the whole workspace, so that nothing is built anew that `cargo xtask test` has built.
    let pods = Pass::of(&["test", "--workspace", "--test", "k8s"]);
    let in_pods = with(services, &PROGRAMS, prepare, &pods, arguments);
    // Who names tests means those.
    if !arguments.is_empty() {
        return in_pods;
    }
    in_pods.and(with_helm_4())
}

/// What `cargo xtask test` does with helm 3, where there is an API server alone: tests of the deployer, and of servers that have it.
fn with_helm_4() -> Result<(), Failed> {
    let pass = Pass {
        command: &["test", "--workspace", "--test", "helm"],
        environment: vec![(HELM, Line::Four.binary()?.display().to_string())],
    };
    with(&[Service::Kube], &PROGRAMS, |_| Ok(()), &pass, &[])
}

/// Gives the node of a run directory what the pods of the tests are made of.
pub(crate) fn give_images(run: &Path) -> Result<(), Failed> {
    let programs = static_programs()?;
    let named = |name: &str, command: &[&str]| Image::new(&format!("{PREFIX}/{name}:{VERSION}"), command);
    let executor = programs.join("command-executor");
    // A tool with the executor as its entry point, as images have that were made for older charts. The shell of busybox would take its own
    // tools, wherever others are.
    let tool = |name: &str| -> Result<Image, Failed> {
        let image = named(name, &["/bin/command-executor"])
            .with(&executor, "/bin/command-executor")
            .with(program("sh")?, "/bin/sh")
            .with(program(name)?, &format!("/usr/bin/{name}"))
            .without(name);
        Ok(image)
    };
    let tesseract_data = tesseract_data()?;
    let images = [
        named("scheduler-server", &["/bin/scheduler-server"])
            .with(binaries()?.join("scheduler-server"), "/bin/scheduler-server")
            .with(helm::binary()?, "/bin/helm")
            // Whoever fetches charts wants to know whom to believe, as distroless has it.
            .with(AUTHORITIES, AUTHORITIES),
        named("scheduler-worker", &["/bin/scheduler-worker"])
            .with(programs.join("scheduler-worker"), "/bin/scheduler-worker"),
        named("command-executor", &["/bin/command-executor"]).with(&executor, "/bin/command-executor"),
        named("busybox", &["/bin/sh"]),
        tool("wget")?,
        tool("tesseract")?.with(&tesseract_data, &tesseract_data.display().to_string()),
    ];
    images.iter().try_for_each(|image| kube::load(run, image))
}

/// Builds agent and executor as the images have them, but for being optimised.
fn static_programs() -> Result<PathBuf, Failed> {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let mut add = Command::new("rustup");
    add.args(["target", "add", &target]).current_dir(root());
    execute(add)?;
    let programs = root().join("target/static");
    let mut build = Command::new("docker/build-static.sh");
    build
        .arg(&target)
        .arg(&programs)
        .env("PROFILE", "dev")
        .current_dir(root());
    execute(build)?;
    Ok(programs)
}

fn program(name: &str) -> Result<PathBuf, Failed> {
    tools::installed(name).ok_or_else(|| format!("`{name}` is missing"))
}

/// Where the languages are that tesseract reads.
fn tesseract_data() -> Result<PathBuf, Failed> {
    let versions = std::fs::read_dir("/usr/share/tesseract-ocr")
        .into_iter()
        .flatten()
        .flatten();
    let mut places = versions.map(|version| version.path().join("tessdata"));
    places
        .find(|place| Path::new(place).join("eng.traineddata").exists())
        .ok_or_else(|| "tesseract reads no English: install tesseract-ocr-eng".to_owned())
}
