//! What a server takes, as the system counts it.

use std::fmt;
use std::fs;

use anyhow::Context as _;

/// Clock ticks of `/proc/PID/stat` a second, on Linux for all machines that matter.
const TICKS: f64 = 100.0;

/// Of a process, since it began.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// User and system.
    pub cpu_seconds: f64,
    written: f64,
    resident_mib: f64,
}

impl Cost {
    /// What the process has taken so far.
    pub fn of(process: u32) -> anyhow::Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{process}/{file}");
            fs::read_to_string(&path).context(path)
        };
        let stat = read("stat")?;
        // The name, in brackets, may have spaces in it.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |at: usize| {
            fields
                .get(at)
                .and_then(|ticks| ticks.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        let number = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|rest| rest.split_whitespace().next());
            word.and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0)
        };
        Ok(Self {
            cpu_seconds: (ticks(11) + ticks(12)) / TICKS,
            written: number(&read("io")?, "write_bytes:"),
            resident_mib: number(&read("status")?, "VmRSS:") / 1024.0,
        })
    }

    /// What several have taken together.
    pub fn of_all(processes: &[u32]) -> anyhow::Result<Self> {
        let none = Self {
            cpu_seconds: 0.0,
            written: 0.0,
            resident_mib: 0.0,
        };
        processes.iter().try_fold(none, |sum, process| {
            let cost = Self::of(*process)?;
            Ok(Self {
                cpu_seconds: sum.cpu_seconds + cost.cpu_seconds,
                written: sum.written + cost.written,
                resident_mib: sum.resident_mib + cost.resident_mib,
            })
        })
    }

    /// Since `before`, for so many tasks.
    pub fn since(self, before: Self, tasks: u64) -> Spent {
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let tasks = tasks.max(1) as f64;
        Spent {
            cpu_seconds_per_million: (self.cpu_seconds - before.cpu_seconds) / tasks * 1e6,
            written_per_task: (self.written - before.written) / tasks,
            resident_mib: self.resident_mib,
        }
    }
}

/// What a test took of the server.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// User and system.
    pub cpu_seconds_per_million: f64,
    /// Bytes that reached the disk.
    pub written_per_task: f64,
    /// Now.
    pub resident_mib: f64,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "server: {:.2} CPU-s per million tasks, {:.0} bytes written a task, {:.0} MiB resident",
            self.cpu_seconds_per_million, self.written_per_task, self.resident_mib
        )
    }
}
