//! The helm CLI, built as a Go module.

use std::path::PathBuf;

use super::golang::Program;
use crate::Failed;

/// What is built.
const VERSION: &str = "3.22.0";

/// Where the program is; built if it is not there.
pub(crate) fn binary() -> Result<PathBuf, Failed> {
    let program = Program {
        kind: "helm",
        name: "helm",
        version: VERSION,
        package: "helm.sh/helm/v3/cmd/helm",
        // It says its version by what the linker is told.
        linked: format!("-X helm.sh/helm/v3/internal/version.version=v{VERSION}"),
        takes: "about 2 minutes on 2 cores",
    };
    program.binary(|_, _| Ok(String::new()))
}
