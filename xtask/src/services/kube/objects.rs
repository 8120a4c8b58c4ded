//! Objects that a service needs in the cluster, put there as a chart of helm.

use std::path::Path;
use std::process::Command;

use super::super::cache::{self, make, write};
use super::super::helm;
use super::kubeconfig;
use crate::Failed;

/// Puts the objects there, or leaves them as they are. `name` is that of the release, and begins the names of files in the run directory.
pub(super) fn put(run: &Path, name: &str, objects: &str) -> Result<(), Failed> {
    let chart = run.join(name);
    make(&chart.join("templates"))?;
    let about = format!("apiVersion: v2\nname: {name}\nversion: 0.1.0\n");
    write(&chart.join("Chart.yaml"), &about)?;
    write(&chart.join("objects.yaml"), objects)?;
    // What stands in a file is taken as it is.
    let template = "{{ .Files.Get \"objects.yaml\" }}\n";
    write(&chart.join("templates/objects.yaml"), template)?;
    let mut command = helm(run, name)?;
    command.args(["upgrade", "--install", name]).arg(&chart);
    cache::run(command, &run.join(format!("{name}.log")))
}

/// Takes them away, if they are there.
pub(super) fn take_away(run: &Path, name: &str) -> Result<(), Failed> {
    let mut command = helm(run, name)?;
    command.args(["uninstall", "--ignore-not-found", name]);
    cache::run(command, &run.join(format!("{name}.log")))
}

fn helm(run: &Path, name: &str) -> Result<Command, Failed> {
    let mut command = Command::new(helm::binary()?);
    command
        .args(["--namespace", "kube-system", "--kubeconfig"])
        .arg(kubeconfig(run));
    for (variable, directory) in [
        ("HELM_CACHE_HOME", "cache"),
        ("HELM_CONFIG_HOME", "config"),
        ("HELM_DATA_HOME", "data"),
    ] {
        command.env(variable, run.join(name).join("helm").join(directory));
    }
    Ok(command)
}
