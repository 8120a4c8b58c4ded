//! The helm CLI.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use scheduler_core::port::deploy::DeployError;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use super::{HelmConfig, kubeconfig};
use crate::leftover::MARK;

/// The oldest of helm 3 that knows labels of releases and how to uninstall what is not there.
const OLDEST: (u32, u32) = (3, 14);
/// Bytes of what helm complains that are kept.
const MAX_COMPLAINT: usize = 16 << 10;
/// How long helm may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs helm.
#[derive(Debug)]
pub(super) struct Helm {
    program: PathBuf,
    directory: PathBuf,
    kubeconfig: Option<PathBuf>,
    version: String,
}

/// Why helm did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelmError {
    /// It says why.
    #[error("{0}")]
    Refused(String),
    /// It wrote more than is taken.
    #[error("it writes more than {0} bytes")]
    TooMuch(usize),
    /// It was killed.
    #[error("it took longer than {} s", .0.as_secs())]
    TooLong(Duration),
    /// It did not run at all.
    #[error("helm does not run: {0}")]
    Broken(#[from] io::Error),
}

/// Within which bounds it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) time: Duration,
    pub(super) output: usize,
    /// Bytes of address space.
    pub(super) memory: Option<u64>,
}

impl Helm {
    /// Finds out whether the program is one that we can work with. `directory` is absolute.
    pub(super) async fn open(config: &HelmConfig, directory: &Path) -> Result<Self, DeployError> {
        let said = config.kubeconfig.as_deref();
        let kubeconfig = kubeconfig::for_helm(said, directory, |name| std::env::var_os(name));
        let kubeconfig = kubeconfig.map_err(|error| {
            let problem = format!("{}: the account of this pod: {error}", directory.display());
            DeployError::Unavailable(problem.into())
        })?;
        let mut helm = Self {
            program: config.program.clone(),
            directory: directory.to_owned(),
            kubeconfig,
            version: String::new(),
        };
        let bounds = Bounds {
            time: VERSION_TIMEOUT,
            output: 1 << 10,
            memory: None,
        };
        let unusable = |problem: String| {
            let program = config.program.display();
            let problem = format!(
                "{program} cannot be used: {problem}; install helm {}.{} or newer, or say where it is (--helm)",
                OLDEST.0, OLDEST.1
            );
            DeployError::Unavailable(problem.into())
        };
        let arguments = ["version", "--template", "{{.Version}}"].map(str::to_owned);
        let said = helm.run(&arguments, false, bounds).await;
        let said = said.map_err(|error| unusable(error.to_string()))?;
        let version = parse_version(&said).ok_or_else(|| unusable(format!("it says that it is {said:?}")))?;
        if version < OLDEST {
            return Err(unusable(format!("it is {}", said.trim())));
        }
        said.trim().clone_into(&mut helm.version);
        Ok(helm)
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Runs it with the cluster at hand; gives what it wrote.
    pub(super) async fn with_cluster(
        &self,
        arguments: &[String],
        time: Duration,
    ) -> Result<String, HelmError> {
        let bounds = Bounds {
            time,
            output: 1 << 20,
            memory: None,
        };
        self.run(arguments, true, bounds).await
    }

    /// Runs it where there is no cluster.
    pub(super) async fn alone(&self, arguments: &[String], bounds: Bounds) -> Result<String, HelmError> {
        self.run(arguments, false, bounds).await
    }

    async fn run(
        &self,
        arguments: &[String],
        sees_cluster: bool,
        bounds: Bounds,
    ) -> Result<String, HelmError> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", &self.directory)
            .env("HELM_CACHE_HOME", self.directory.join("helm/cache"))
            .env("HELM_CONFIG_HOME", self.directory.join("helm/config"))
            .env("HELM_DATA_HOME", self.directory.join("helm/data"))
            .env("HELM_PLUGINS", self.directory.join("helm/plugins"))
            // By it a later start finds what a killed one left running.
            .env(MARK, &self.directory)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let passed = |name: &str| std::env::var_os(name).map(|value| (name.to_owned(), value));
        command.envs(passed("PATH"));
        if sees_cluster {
            match &self.kubeconfig {
                Some(path) => drop(command.env("KUBECONFIG", path)),
                None => drop(command.envs(passed("KUBECONFIG"))),
            }
        } else {
            command.env("KUBECONFIG", "/dev/null");
        }
        let mut child = command.spawn()?;
        if let Some(memory) = bounds.memory
            && let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?))
        {
            let limit = Rlimit {
                current: Some(memory),
                maximum: Some(memory),
            };
            prlimit(Some(pid), Resource::As, limit).map_err(io::Error::from)?;
        }
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work = async {
            let (written, complaint) = tokio::join!(
                read(stdout, bounds.output, false),
                read(stderr, MAX_COMPLAINT, true)
            );
            let Some(written) = written? else {
                return Err(HelmError::TooMuch(bounds.output));
            };
            let status = child.wait().await?;
            if status.success() {
                Ok(String::from_utf8_lossy(&written).into_owned())
            } else {
                let complaint = complaint?.unwrap_or_default();
                Err(HelmError::Refused(told(&complaint, &status.to_string())))
            }
        };
        // What is dropped here is killed.
        tokio::time::timeout(bounds.time, work)
            .await
            .unwrap_or(Err(HelmError::TooLong(bounds.time)))
    }
}

/// At most `max` bytes; nothing if there are more, unless only the beginning is wanted.
async fn read(
    from: Option<impl AsyncRead + Unpin>,
    max: usize,
    beginning: bool,
) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let Some(mut from) = from else {
        return Ok(Some(bytes));
    };
    (&mut from).take(max as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.len() <= max {
        return Ok(Some(bytes));
    }
    if !beginning {
        return Ok(None);
    }
    bytes.truncate(max);
    // Whoever writes into a pipe that nobody reads waits.
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(Some(bytes))
}

/// What helm said of an error, for people: without warnings, and at least the end of a Go program that died.
fn told(complaint: &[u8], status: &str) -> String {
    let text = String::from_utf8_lossy(complaint);
    let lines = text.lines().map(str::trim).filter(|line| {
        !line.is_empty() && !line.starts_with("WARNING:") && !line.starts_with("Use --debug flag")
    });
    let text: Vec<&str> = lines.take(12).collect();
    let text = text.join(" ");
    let text = text.strip_prefix("Error: ").unwrap_or(&text);
    if text.is_empty() {
        return format!("helm ended with {status}");
    }
    text.chars().take(1500).collect()
}

fn parse_version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.trim().strip_prefix('v')?.split(['.', '+', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(parse_version("v3.22.0\n"), Some((3, 22)));
        assert_eq!(parse_version("v4.1.3+g1234"), Some((4, 1)));
        assert_eq!(parse_version("Client: v2"), None);
        assert!(parse_version("v3.9.4").unwrap() < OLDEST);
    }

    #[test]
    fn a_complaint_is_told_without_what_is_about_something_else() {
        let said =
            b"WARNING: Kubernetes configuration file is group-readable.\nError: release: not found\n\n";
        assert_eq!(told(said, "exit status: 1"), "release: not found");
        assert_eq!(
            told(b"", "signal: 9 (SIGKILL)"),
            "helm ended with signal: 9 (SIGKILL)"
        );
    }
}
