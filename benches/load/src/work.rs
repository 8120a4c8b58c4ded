//! The tasks: bytes of which the first say which task it is and since when it is due.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};

/// Hexadecimal digits of a number in them.
const DIGITS: usize = 16;
/// Tasks that show that workers receive, and are not counted.
const PROBE: u64 = 1 << 40;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Since this program began to measure.
pub(crate) fn now() -> Duration {
    START.elapsed()
}

/// Text that does not compress to nothing.
pub(crate) static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut x = 88_172_645_463_325_252_u64;
    (0..1 << 18)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            LETTERS[usize::try_from(x & 63).unwrap_or(0)]
        })
        .collect()
});

/// One task.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Task {
    pub(crate) id: u64,
    /// When it was to be submitted.
    pub(crate) due: Duration,
}

impl Task {
    /// So many bytes of params, at least 32.
    pub(crate) fn params(self, length: usize) -> Bytes {
        let due = u64::try_from(self.due.as_nanos()).unwrap_or(u64::MAX);
        let mut params = Vec::with_capacity(length);
        for number in [self.id, due] {
            params.extend(
                (0..DIGITS).rev().map(|digit| {
                    b"0123456789abcdef"[usize::try_from(number >> (4 * digit) & 15).unwrap_or(0)]
                }),
            );
        }
        let rest = length.saturating_sub(params.len()).min(TEXT.len());
        let from = usize::try_from(due.wrapping_mul(2_654_435_761)).unwrap_or(0) % (TEXT.len() - rest + 1);
        params.extend(&TEXT[from..from + rest]);
        params.into()
    }

    pub(crate) fn parse(params: &[u8]) -> Option<Self> {
        let number = |digits: &[u8]| u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok();
        let (id, rest) = params.split_at_checked(DIGITS)?;
        let (due, _) = rest.split_at_checked(DIGITS)?;
        Some(Self {
            id: number(id)?,
            due: Duration::from_nanos(number(due)?),
        })
    }

    pub(crate) fn is_probe(self) -> bool {
        self.id & PROBE != 0
    }
}

/// Where producers take tasks from.
#[derive(Debug)]
pub(crate) enum Source {
    /// As many as are wanted, one after the other.
    Closed {
        next: AtomicU64,
        count: u64,
        probes: bool,
        stop: AtomicBool,
    },
    /// Those that are due.
    Open(Mutex<mpsc::UnboundedReceiver<Task>>),
}

impl Source {
    pub(crate) fn closed(count: u64) -> Self {
        Self::new_closed(count, false)
    }

    pub(crate) fn probes(count: u64) -> Self {
        Self::new_closed(count, true)
    }

    fn new_closed(count: u64, probes: bool) -> Self {
        Self::Closed {
            next: AtomicU64::new(0),
            count,
            probes,
            stop: AtomicBool::new(false),
        }
    }

    /// Tasks fall due at a fixed rate from now on, whatever becomes of those before: a thread sees to it.
    pub(crate) fn open(rate: u64, time: Duration) -> Self {
        // It holds at most what the whole test submits.
        let (send, receive) = mpsc::unbounded_channel();
        let count = rate * time.as_secs();
        std::thread::spawn(move || {
            let begun = now();
            for id in 0..count {
                let due = begun + Duration::from_nanos(id * 1_000_000_000 / rate);
                if let Some(wait) = due.checked_sub(now()) {
                    std::thread::sleep(wait);
                }
                if send.send(Task { id, due }).is_err() {
                    return;
                }
            }
        });
        Self::Open(Mutex::new(receive))
    }

    pub(crate) fn stop(&self) {
        if let Self::Closed { stop, .. } = self {
            stop.store(true, Ordering::Relaxed);
        }
    }

    /// Up to `most` tasks, at least one; none at the end.
    pub(crate) async fn take(&self, most: u64) -> Vec<Task> {
        match self {
            Self::Closed {
                next,
                count,
                probes,
                stop,
            } => {
                if stop.load(Ordering::Relaxed) {
                    return Vec::new();
                }
                let from = next.fetch_add(most, Ordering::Relaxed).min(*count);
                let due = now();
                let base = if *probes { PROBE } else { 0 };
                (from..(from + most).min(*count))
                    .map(|id| Task { id: base + id, due })
                    .collect()
            }
            Self::Open(due) => {
                let mut tasks = Vec::new();
                due.lock()
                    .await
                    .recv_many(&mut tasks, usize::try_from(most).unwrap_or(1))
                    .await;
                tasks
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_say_which_task_it_is_and_since_when() {
        let task = Task {
            id: 0xfeed,
            due: Duration::from_nanos(1_234_567_890_123),
        };
        for length in [32, 128, 262_176] {
            assert_eq!(task.params(length).len(), length);
            assert_eq!(Task::parse(&task.params(length)), Some(task));
        }
        assert_eq!(Task::parse(b"too short"), None);
    }

    #[tokio::test]
    async fn every_task_is_handed_out_once() {
        let source = Source::closed(10);
        let mut ids = Vec::new();
        loop {
            let tasks = source.take(4).await;
            if tasks.is_empty() {
                break;
            }
            ids.extend(tasks.into_iter().map(|task| task.id));
        }
        assert_eq!(ids, (0..10).collect::<Vec<_>>());
    }
}
