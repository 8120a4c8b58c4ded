//! A registry for charts and images (CNCF distribution): one process, its data on disk, plain HTTP.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::write;
use super::golang::Program;
use super::process::Record;
use super::tidb::answers;
use crate::Failed;

/// What is built.
pub(crate) const VERSION: &str = "3.1.2";
/// Its name among the services.
pub(crate) const NAME: &str = "registry";
/// Its port as it is documented.
pub(crate) const USUAL_PORTS: [u16; 1] = [15_000];

/// Where the server's binary is; built if it is not there.
pub(crate) fn binary() -> Result<PathBuf, Failed> {
    let program = Program {
        kind: NAME,
        name: NAME,
        version: VERSION,
        package: "github.com/distribution/distribution/v3/cmd/registry",
        linked: String::new(),
        takes: "about a minute on 2 cores",
        patch: None,
    };
    program.binary(|_, _| Ok(String::new()))
}

/// What identifies the process: an argument, its configuration.
pub(crate) fn mark(run: &Path) -> String {
    run.join("registry.yaml").display().to_string()
}

/// Starts it, unless it runs.
pub(crate) fn start(run: &Path, binary: &Path, record: &mut Record) -> Result<(), Failed> {
    if record.running().is_some() {
        return Ok(());
    }
    write(Path::new(&record.mark), &configuration(run, record.port()))?;
    let mut command = Command::new(binary);
    command
        .arg("serve")
        .arg(&record.mark)
        .env("OTEL_TRACES_EXPORTER", "none");
    record.start(run, command)
}

fn configuration(run: &Path, port: u16) -> String {
    format!(
        "version: 0.1\n\
         log: {{level: warn}}\n\
         storage: {{filesystem: {{rootdirectory: \"{}\"}}, delete: {{enabled: true}}}}\n\
         http: {{addr: \"127.0.0.1:{port}\", secret: loopback}}\n",
        run.join("registry-data").display()
    )
}

/// Whether it answers.
pub(crate) fn is_up(port: u16) -> bool {
    answers(port, "/v2/")
}
