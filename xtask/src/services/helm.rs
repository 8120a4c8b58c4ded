//! The helm CLI, built as a Go module.

use std::path::PathBuf;

use super::golang::Program;
use crate::Failed;

/// Says which line of helm is meant, `3` or `4`; 3 if it is not set.
const LINE: &str = "SCHEDULER_HELM";

/// The lines of helm that the deployer works with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Line {
    Three,
    Four,
}

impl Line {
    /// The one that is asked for.
    pub(crate) fn asked() -> Result<Self, Failed> {
        match std::env::var(LINE).as_deref() {
            Err(_) | Ok("" | "3") => Ok(Self::Three),
            Ok("4") => Ok(Self::Four),
            Ok(other) => Err(format!("{LINE} is `{other}`; it takes 3 or 4")),
        }
    }

    /// Where the program is; built if it is not there.
    pub(crate) fn binary(self) -> Result<PathBuf, Failed> {
        let (version, package, version_of) = match self {
            Self::Three => (
                "3.22.0",
                "helm.sh/helm/v3/cmd/helm",
                "helm.sh/helm/v3/internal/version.version",
            ),
            Self::Four => (
                "4.3.1",
                "helm.sh/helm/v4/cmd/helm",
                "helm.sh/helm/v4/internal/version.version",
            ),
        };
        let program = Program {
            kind: "helm",
            name: "helm",
            version,
            package,
            // It says its version by what the linker is told.
            linked: format!("-X {version_of}=v{version}"),
            takes: "about 2 minutes on 2 cores",
            patch: None,
        };
        program.binary(|_, _| Ok(String::new()))
    }
}

/// Where the program of the line that is asked for is; built if it is not there.
pub(crate) fn binary() -> Result<PathBuf, Failed> {
    Line::asked()?.binary()
}
