//! Which faults come when: a seed and a length give the same plan every time.

use std::fmt;
use std::time::Duration;

/// What is done to the system.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// SIGKILL, and a start on the same data.
    KillServer,
    /// SIGSTOP, and SIGCONT a while later.
    PauseServer,
    /// SIGTERM, and a start when it has ended in order.
    RestartServer,
    /// SIGKILL of the worker of that number, and another in its place.
    KillWorker(usize),
    /// SIGSTOP of the worker of that number, and SIGCONT a while later.
    PauseWorker(usize),
    /// Connections between workers and the server break, and no new one is taken for a while.
    CutLink,
    /// What goes over the link comes late for a while.
    DelayLink,
}

/// One fault of a plan.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// Since the end of the one before.
    pub after: Duration,
    /// What happens.
    pub fault: Fault,
    /// How long what passes lasts.
    pub lasts: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillServer => write!(f, "kill -9 of the server"),
            Self::PauseServer => write!(f, "SIGSTOP of the server"),
            Self::RestartServer => write!(f, "restart of the server"),
            Self::KillWorker(worker) => write!(f, "kill -9 of worker {worker}"),
            Self::PauseWorker(worker) => write!(f, "SIGSTOP of worker {worker}"),
            Self::CutLink => write!(f, "link cut"),
            Self::DelayLink => write!(f, "link delayed"),
        }
    }
}

impl Fault {
    /// Whether a task that this worker had ended may run again by it. A fault of the server alone repeats nothing.
    pub fn may_repeat(self, worker: usize) -> bool {
        match self {
            Self::KillServer | Self::PauseServer | Self::RestartServer => false,
            Self::KillWorker(hit) | Self::PauseWorker(hit) => hit == worker,
            Self::CutLink | Self::DelayLink => true,
        }
    }
}

/// Draws faults for about that long. `workers` must not be 0.
pub fn draw(seed: u64, length: Duration, workers: usize) -> Vec<Step> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut steps = Vec::new();
    let mut at = Duration::ZERO;
    loop {
        let after = Duration::from_millis(random.u64(500..3_000));
        let lasts = Duration::from_millis(random.u64(200..3_000));
        let worker = random.usize(0..workers);
        let fault = match random.u32(0..7) {
            0 => Fault::KillServer,
            1 => Fault::PauseServer,
            2 => Fault::RestartServer,
            3 => Fault::KillWorker(worker),
            4 => Fault::PauseWorker(worker),
            5 => Fault::CutLink,
            _ => Fault::DelayLink,
        };
        at += after + lasts;
        if at > length {
            return steps;
        }
        steps.push(Step { after, fault, lasts });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_plan_and_another_seed_another() {
        let length = Duration::from_mins(2);
        assert_eq!(draw(3, length, 4), draw(3, length, 4));
        assert_ne!(draw(3, length, 4), draw(4, length, 4));
        let total: Duration = draw(3, length, 4)
            .iter()
            .map(|step| step.after + step.lasts)
            .sum();
        assert!(total <= length && !draw(3, length, 4).is_empty());
    }

    #[test]
    fn a_longer_plan_begins_like_a_shorter_one() {
        let short = draw(9, Duration::from_mins(1), 4);
        assert_eq!(draw(9, Duration::from_mins(3), 4)[..short.len()], short);
    }

    #[test]
    fn only_what_hits_the_worker_excuses_a_repeat() {
        assert!(Fault::KillWorker(2).may_repeat(2) && !Fault::KillWorker(2).may_repeat(1));
        assert!(!Fault::KillServer.may_repeat(2));
    }
}
