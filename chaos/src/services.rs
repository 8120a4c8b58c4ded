//! A Kafka and a TiDB that nobody else uses, so that they can be killed. They end with this process, however it ends.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scheduler_examples::binaries;
use tokio::process::Command;

/// Between two looks at a process that nobody can wait for.
const LOOK: Duration = Duration::from_millis(20);

/// Which of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Service {
    Broker(usize),
    Tidb,
}

impl Service {
    fn name(self) -> String {
        match self {
            Self::Broker(broker) => format!("kafka-{}", broker + 1),
            Self::Tidb => "tidb".to_owned(),
        }
    }

    fn flag(self) -> &'static str {
        match self {
            Self::Broker(_) => "--kafka",
            Self::Tidb => "--tidb",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Services {
    xtask: PathBuf,
    directory: PathBuf,
    brokers: u16,
    /// For each server, at which port each broker says to be when it is asked by that server.
    detours: Vec<Vec<u16>>,
    guard: Option<Child>,
    /// Where clients find the brokers.
    pub(crate) kafka: String,
}

impl Services {
    pub(crate) async fn start(
        directory: &Path,
        brokers: u16,
        detours: Vec<Vec<u16>>,
    ) -> anyhow::Result<Self> {
        let xtask = match std::env::var_os("SCHEDULER_XTASK") {
            Some(given) => given.into(),
            None => binaries()?.join("xtask"),
        };
        let guard = guard(&xtask, directory)?;
        let mut services = Self {
            xtask,
            directory: directory.to_owned(),
            brokers,
            detours,
            guard: Some(guard),
            kafka: String::new(),
        };
        let said = services.up(&[]).await?;
        let variables: BTreeMap<&str, &str> = said
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .collect();
        let variable = |name: &str| variables.get(name).map(|value| (*value).to_owned());
        services.kafka = variable("SCHEDULER_TEST_KAFKA").context("where Kafka is was not said")?;
        Ok(services)
    }

    /// Starts what does not run, and waits until it answers.
    async fn up(&self, flags: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.xtask);
        command
            .args(["services", "up", "--brokers", &self.brokers.to_string()])
            .arg("--dir")
            .arg(&self.directory)
            .args(flags);
        for detour in &self.detours {
            let ports: Vec<String> = detour.iter().map(u16::to_string).collect();
            command.args(["--detour", &ports.join(",")]);
        }
        let output = command
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| {
                format!(
                    "{} did not start; build it with `cargo build -p xtask`",
                    self.xtask.display()
                )
            })?;
        anyhow::ensure!(
            output.status.success(),
            "services did not start: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts one that was killed, with its data, and its ports if they are free.
    pub(crate) async fn heal(&self, service: Service) -> anyhow::Result<()> {
        self.up(&[service.flag()]).await.map(drop)
    }

    pub(crate) fn signal(&self, service: Service, signal: Signal) -> anyhow::Result<()> {
        let pid: i32 = self.of(service, "pid")?.parse()?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Ends one at once; answers when it is gone, so that it can be started again.
    pub(crate) async fn kill(&self, service: Service) -> anyhow::Result<()> {
        let status = format!("/proc/{}/stat", self.of(service, "pid")?);
        self.signal(service, Signal::SIGKILL)?;
        // It holds locks on its data until it is at least a zombie.
        while std::fs::read_to_string(&status).is_ok_and(|status| !has_ended(&status)) {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Where a service listens: the first port is for everybody, the second for itself, then there is one for each server.
    pub(crate) fn address(&self, service: Service, port: usize) -> anyhow::Result<SocketAddr> {
        let ports = self.of(service, "ports")?;
        let port = ports
            .split(',')
            .nth(port)
            .with_context(|| format!("{} has no port {port}", service.name()))?;
        Ok((Ipv4Addr::LOCALHOST, port.parse()?).into())
    }

    /// A field of its record.
    fn of(&self, service: Service, field: &str) -> anyhow::Result<String> {
        let path = self.directory.join(format!("{}.process", service.name()));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| *name == field)
            .map(|(_, value)| value.to_owned())
            .with_context(|| format!("{} has no {field}", path.display()))
    }

    /// Ends them and deletes their data.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            tokio::task::spawn_blocking(move || guard.wait()).await??;
        }
        Ok(())
    }
}

/// Whether a process of that status has let go of everything. Its state comes after its name in parentheses, which may hold anything.
fn has_ended(status: &str) -> bool {
    let state = status.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| state.starts_with(['Z', 'X']))
}

/// Starts the process that ends the services when the pipe to it is closed, which the system does also when we are killed.
fn guard(xtask: &Path, directory: &Path) -> anyhow::Result<Child> {
    use std::os::unix::process::CommandExt as _;
    std::process::Command::new(xtask)
        .args(["services", "guard", "--dir"])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Ctrl-C ends us, and it has work to do then.
        .process_group(0)
        .spawn()
        .with_context(|| {
            format!(
                "{} did not start; build it with `cargo build -p xtask`",
                xtask.display()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::has_ended;

    #[test]
    fn a_zombie_has_ended_and_a_name_does_not_matter() {
        assert!(has_ended("71 (tidb) Z 1 71"));
        assert!(!has_ended("71 (odd) Z name) S 1 71"));
        assert!(!has_ended("71 (tidb) D 1 71"));
    }
}
