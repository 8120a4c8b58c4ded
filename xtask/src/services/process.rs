//! One server process that outlives the command that started it: its record on disk, whether it still runs, its end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failed;

/// How long a server may take to end by itself before it is killed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at something that cannot be waited for.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// What is remembered of a server: a file of `key=value` lines.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Record {
    /// Names it and its files: `kafka-1`, `tidb`.
    pub(crate) name: String,
    /// What runs.
    pub(crate) version: String,
    /// Its process while it is meant to run; none after it was stopped.
    pub(crate) pid: Option<u32>,
    /// An argument that no other process has: how we know a process for ours after its id may have been given away.
    pub(crate) mark: String,
    /// Its ports by name, the one for clients first.
    pub(crate) ports: Vec<u16>,
    /// How many there are of its kind.
    pub(crate) of: u16,
}

impl Record {
    /// The record of that name in a run directory, if there is a readable one.
    pub(crate) fn load(run: &Path, name: &str) -> Option<Self> {
        Self::parse(name, &fs::read_to_string(path(run, name)).ok()?)
    }

    /// All records of a run directory, by name.
    pub(crate) fn all(run: &Path) -> Vec<Self> {
        let entries = fs::read_dir(run).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".process").map(str::to_owned)
        });
        let mut records: Vec<_> = names.filter_map(|name| Self::load(run, &name)).collect();
        records.sort_by(|one, other| one.name.cmp(&other.name));
        records
    }

    fn parse(name: &str, text: &str) -> Option<Self> {
        let fields: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let ports: Result<Vec<u16>, _> = fields.get("ports")?.split(',').map(str::parse).collect();
        Some(Self {
            name: name.to_owned(),
            version: (*fields.get("version")?).to_owned(),
            pid: match *fields.get("pid")? {
                "" => None,
                pid => Some(pid.parse().ok()?),
            },
            mark: (*fields.get("mark")?).to_owned(),
            ports: ports.ok()?,
            of: fields.get("of")?.parse().ok()?,
        })
    }

    fn text(&self) -> String {
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        format!(
            "version={}\npid={}\nmark={}\nports={}\nof={}\n",
            self.version,
            self.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            self.mark,
            ports.join(","),
            self.of
        )
    }

    /// Writes it, whole or not at all.
    pub(crate) fn save(&self, run: &Path) -> Result<(), Failed> {
        let path = path(run, &self.name);
        let new = path.with_extension("new");
        fs::write(&new, self.text())
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))
    }

    /// Where clients find it.
    pub(crate) fn port(&self) -> u16 {
        self.ports.first().copied().unwrap_or_default()
    }

    /// Its process, if that is still the one we started.
    pub(crate) fn running(&self) -> Option<u32> {
        self.pid.filter(|pid| is_ours(*pid, &self.mark))
    }

    /// Starts it detached from this terminal, with its output appended to a log.
    pub(crate) fn start(&mut self, run: &Path, mut command: Command) -> Result<(), Failed> {
        use std::os::unix::process::CommandExt as _;
        let log = log(run, &self.name);
        let open = || File::options().create(true).append(true).open(&log);
        let cannot = |error| format!("{} cannot be written: {error}", log.display());
        command
            .stdin(Stdio::null())
            .stdout(open().map_err(cannot)?)
            .stderr(open().map_err(cannot)?)
            // Ctrl-C is for the command in front, not for what it leaves behind.
            .process_group(0);
        let failed = |error| format!("{} did not start: {error}", self.name);
        let mut child = command.spawn().map_err(failed)?;
        self.pid = Some(child.id());
        // For a moment a new process has no arguments yet.
        while self.running().is_none() && child.try_wait().map_err(failed)?.is_none() {
            std::thread::sleep(LOOK);
        }
        self.save(run)
    }

    /// Ends it: asks, waits, and kills at last. Another's process of the same id is left alone.
    pub(crate) fn stop(&mut self, run: &Path, force: bool) -> Result<(), Failed> {
        if let Some(pid) = self.running() {
            signal(pid, if force { "KILL" } else { "TERM" })?;
            // One that is stopped (SIGSTOP) takes no TERM before it goes on.
            signal(pid, "CONT")?;
            if !gone(pid, &self.mark, PATIENCE) {
                signal(pid, "KILL")?;
                if !gone(pid, &self.mark, PATIENCE) {
                    return Err(format!("{} (pid {pid}) does not end", self.name));
                }
            }
        }
        self.pid = None;
        self.save(run)
    }

    /// The last lines of its log.
    pub(crate) fn tail(&self, run: &Path) -> String {
        let text = fs::read(log(run, &self.name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

fn path(run: &Path, name: &str) -> PathBuf {
    run.join(format!("{name}.process"))
}

/// Where its output goes.
pub(crate) fn log(run: &Path, name: &str) -> PathBuf {
    run.join(format!("{name}.log"))
}

/// Whether the process has the mark among its arguments. A zombie has no arguments.
fn is_ours(pid: u32, mark: &str) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        line.split(|byte| *byte == 0)
            .any(|argument| argument == mark.as_bytes())
    })
}

fn gone(pid: u32, mark: &str, patience: Duration) -> bool {
    let begun = Instant::now();
    while is_ours(pid, mark) {
        if begun.elapsed() > patience {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

/// Processes that have all of these among their arguments.
pub(crate) fn processes(marks: &[&str]) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| marks.iter().all(|mark| is_ours(*pid, mark)))
        .collect()
}

/// Sends a signal; a process that has gone meanwhile is no error.
pub(crate) fn signal(pid: u32, name: &str) -> Result<(), Failed> {
    // The shell's own `kill`: a system without procps has no other.
    Command::new("sh")
        .args([
            "-c",
            "kill -s \"$1\" \"$2\" 2>/dev/null",
            "sh",
            name,
            &pid.to_string(),
        ])
        .status()
        .map(drop)
        .map_err(|error| format!("`sh` did not start: {error}"))
}

/// Resident memory in MiB.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes >> 10)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn record(mark: &str, pid: Option<u32>) -> Record {
        Record {
            name: "kafka-2".into(),
            version: "4.1.0".into(),
            pid,
            mark: mark.into(),
            ports: vec![29102, 29103],
            of: 3,
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        for pid in [None, Some(77)] {
            let record = record("/run/kafka-2.properties", pid);
            assert_eq!(Record::parse("kafka-2", &record.text()), Some(record));
        }
    }

    #[test]
    fn half_a_record_is_none() {
        let whole = record("m", Some(1)).text();
        for lines in 0..5 {
            let half: String = whole.lines().take(lines).flat_map(|line| [line, "\n"]).collect();
            assert_eq!(Record::parse("kafka-2", &half), None, "{half:?}");
        }
        assert_eq!(Record::parse("kafka-2", &whole.replace("29103", "x")), None);
    }

    #[test]
    fn a_process_is_ours_by_its_mark_alone() {
        let mut child = Command::new("sh")
            .args(["-c", "echo up; read _", "mark-of-this-test"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        assert_eq!(
            record("mark-of-this-test", Some(child.id())).running(),
            Some(child.id())
        );
        assert_eq!(record("another", Some(child.id())).running(), None);
        assert!(resident(child.id()).is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(record("mark-of-this-test", Some(child.id())).running(), None);
    }
}
