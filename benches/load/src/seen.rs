//! What workers have seen: which tasks, how often, and how late.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::watch;

use crate::work::{Task, now};

/// Longer latencies count as this, in microseconds.
const SLOWEST: u64 = 600_000_000;

#[derive(Debug)]
pub(crate) struct Seen {
    bits: Vec<AtomicU32>,
    want: u64,
    unique: AtomicU64,
    repeated: AtomicU64,
    probes: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
    /// Latencies of tasks that were due after a moment.
    late: Option<(Duration, Mutex<Histogram<u64>>)>,
    done: watch::Sender<bool>,
    probed: watch::Sender<u64>,
}

impl Seen {
    /// Of tasks 0 to `want`.
    pub(crate) fn new(want: u64) -> Self {
        let words = usize::try_from(want / 32).unwrap_or(0) + 1;
        Self {
            bits: (0..words).map(|_| AtomicU32::new(0)).collect(),
            want,
            unique: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            probes: AtomicU64::new(0),
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
            late: None,
            done: watch::Sender::new(want == 0),
            probed: watch::Sender::new(0),
        }
    }

    /// Latencies, too, of what is due after `from`.
    pub(crate) fn with_latencies(want: u64, from: Duration) -> anyhow::Result<Self> {
        let histogram = Histogram::new_with_bounds(1, SLOWEST, 3)?;
        Ok(Self {
            late: Some((from, Mutex::new(histogram))),
            ..Self::new(want)
        })
    }

    /// A worker has the task in hand.
    pub(crate) fn see(&self, params: &[u8]) {
        let at = now();
        let Some(task) = Task::parse(params) else {
            return;
        };
        if task.is_probe() {
            self.probed
                .send_replace(self.probes.fetch_add(1, Ordering::Relaxed) + 1);
            return;
        }
        let bit = 1 << (task.id & 31);
        let Some(word) = self.bits.get(usize::try_from(task.id / 32).unwrap_or(usize::MAX)) else {
            return;
        };
        if word.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let nanoseconds = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        if self.first.load(Ordering::Relaxed) == 0 {
            let _ = self
                .first
                .compare_exchange(0, nanoseconds, Ordering::Relaxed, Ordering::Relaxed);
        }
        self.last.fetch_max(nanoseconds, Ordering::Relaxed);
        if let Some((from, histogram)) = &self.late
            && task.due >= *from
        {
            let micros = u64::try_from(at.saturating_sub(task.due).as_micros()).unwrap_or(SLOWEST);
            let mut histogram = histogram
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            histogram.saturating_record(micros.clamp(1, SLOWEST));
        }
        if self.unique.fetch_add(1, Ordering::Relaxed) + 1 == self.want {
            self.done.send_replace(true);
        }
    }

    /// Waits until every task was seen.
    pub(crate) async fn all(&self) {
        // The sender is ours, so it does not go.
        let _ = self.done.subscribe().wait_for(|done| *done).await;
    }

    pub(crate) async fn probes(&self, count: u64) {
        let _ = self.probed.subscribe().wait_for(|seen| *seen >= count).await;
    }

    pub(crate) fn unique(&self) -> u64 {
        self.unique.load(Ordering::Relaxed)
    }

    pub(crate) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    pub(crate) fn first(&self) -> Duration {
        Duration::from_nanos(self.first.load(Ordering::Relaxed))
    }

    pub(crate) fn last(&self) -> Duration {
        Duration::from_nanos(self.last.load(Ordering::Relaxed))
    }

    /// What `read` makes of the latencies, in microseconds, if they are kept.
    pub(crate) fn latencies<T>(&self, read: impl FnOnce(&Histogram<u64>) -> T) -> Option<T> {
        let (_, histogram) = self.late.as_ref()?;
        let histogram = histogram
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Some(read(&histogram))
    }
}
