//! Which faults come when: a seed, a length and a scope give the same plan every time.

use std::fmt;
use std::time::Duration;

/// What is done to the system. Servers, workers and brokers are numbered from 0.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Fault {
    /// SIGKILL, and a start a while later.
    KillServer(usize),
    /// SIGSTOP, and SIGCONT a while later.
    PauseServer(usize),
    /// SIGTERM, and a start when it has ended in order.
    RestartServer(usize),
    /// All servers, one after the other, as in an upgrade.
    RestartAll,
    /// SIGKILL of a worker, and another in its place.
    KillWorker(usize),
    /// SIGSTOP of a worker, and SIGCONT a while later.
    PauseWorker(usize),
    /// Connections of workers and of the other servers to a server break, and no new one is taken for a while.
    CutServer(usize),
    /// What goes over these comes late for a while.
    DelayServer(usize),
    /// The same between a server and TiDB.
    CutStore(usize),
    /// The same between a server and TiDB.
    DelayStore(usize),
    /// The same between a server and all brokers.
    CutLog(usize),
    /// The same between a server and all brokers.
    DelayLog(usize),
    /// SIGKILL of a broker, and a start on the same data a while later.
    KillBroker(usize),
    /// SIGSTOP of a broker, and SIGCONT a while later.
    PauseBroker(usize),
    /// SIGKILL of TiDB, and a start on the same data a while later.
    KillStore,
    /// SIGSTOP of TiDB, and SIGCONT a while later.
    PauseStore,
    /// The pipeline's log gets two more partitions.
    Grow,
}

/// What there is that faults can happen to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scope {
    /// Servers.
    pub nodes: usize,
    /// Workers.
    pub workers: usize,
    /// Brokers; 0 for a server with an embedded log and store.
    pub brokers: u16,
    /// Kinds of faults, by their names; all that there are if it is empty.
    pub only: Vec<String>,
}

impl Scope {
    /// The names of what can happen here.
    pub fn names(&self) -> Vec<&'static str> {
        let all = Self {
            only: Vec::new(),
            ..self.clone()
        };
        let kinds = kinds(&mut fastrand::Rng::with_seed(0), &all);
        kinds.into_iter().map(Fault::name).collect()
    }
}

/// Faults that come together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// Since the end of those before.
    pub after: Duration,
    /// What happens, and how long what passes lasts.
    pub faults: Vec<(Fault, Duration)>,
}

impl Step {
    fn lasts(&self) -> Duration {
        self.faults
            .iter()
            .map(|(_, lasts)| *lasts)
            .max()
            .unwrap_or_default()
    }
}

/// Longer than Kafka's session timeout and the workers' sign of life: somebody is given up.
const LONG: std::ops::Range<u64> = 8_000..16_000;
const SHORT: std::ops::Range<u64> = 200..3_000;
const PAUSE: std::ops::Range<u64> = 500..3_000;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillServer(node) => write!(f, "kill -9 of server {node}"),
            Self::PauseServer(node) => write!(f, "SIGSTOP of server {node}"),
            Self::RestartServer(node) => write!(f, "restart of server {node}"),
            Self::RestartAll => write!(f, "rolling restart of all servers"),
            Self::KillWorker(worker) => write!(f, "kill -9 of worker {worker}"),
            Self::PauseWorker(worker) => write!(f, "SIGSTOP of worker {worker}"),
            Self::CutServer(node) => write!(f, "server {node} cut off from workers and servers"),
            Self::DelayServer(node) => write!(f, "server {node} slow for workers and servers"),
            Self::CutStore(node) => write!(f, "server {node} cut off from TiDB"),
            Self::DelayStore(node) => write!(f, "TiDB slow for server {node}"),
            Self::CutLog(node) => write!(f, "server {node} cut off from Kafka"),
            Self::DelayLog(node) => write!(f, "Kafka slow for server {node}"),
            Self::KillBroker(broker) => write!(f, "kill -9 of broker {broker}"),
            Self::PauseBroker(broker) => write!(f, "SIGSTOP of broker {broker}"),
            Self::KillStore => write!(f, "kill -9 of TiDB"),
            Self::PauseStore => write!(f, "SIGSTOP of TiDB"),
            Self::Grow => write!(f, "two more partitions"),
        }
    }
}

/// What a fault happens to. Two faults of the same do not come together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Target {
    Server(usize),
    Servers,
    Worker(usize),
    Kafka,
    Tidb,
    Pipeline,
}

impl Target {
    fn overlaps(self, other: Self) -> bool {
        let is_server = |target| matches!(target, Self::Server(_) | Self::Servers);
        self == other
            || (self == Self::Servers && is_server(other))
            || (other == Self::Servers && is_server(self))
    }
}

impl Fault {
    /// The name of its kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillServer(_) => "kill-server",
            Self::PauseServer(_) => "pause-server",
            Self::RestartServer(_) => "restart-server",
            Self::RestartAll => "restart-all",
            Self::KillWorker(_) => "kill-worker",
            Self::PauseWorker(_) => "pause-worker",
            Self::CutServer(_) => "cut-server",
            Self::DelayServer(_) => "delay-server",
            Self::CutStore(_) => "cut-store",
            Self::DelayStore(_) => "delay-store",
            Self::CutLog(_) => "cut-log",
            Self::DelayLog(_) => "delay-log",
            Self::KillBroker(_) => "kill-broker",
            Self::PauseBroker(_) => "pause-broker",
            Self::KillStore => "kill-store",
            Self::PauseStore => "pause-store",
            Self::Grow => "grow",
        }
    }

    fn target(self) -> Target {
        match self {
            Self::KillServer(node)
            | Self::PauseServer(node)
            | Self::RestartServer(node)
            | Self::CutServer(node)
            | Self::DelayServer(node)
            | Self::CutStore(node)
            | Self::DelayStore(node)
            | Self::CutLog(node)
            | Self::DelayLog(node) => Target::Server(node),
            Self::RestartAll => Target::Servers,
            Self::KillWorker(worker) | Self::PauseWorker(worker) => Target::Worker(worker),
            Self::KillBroker(_) | Self::PauseBroker(_) => Target::Kafka,
            Self::KillStore | Self::PauseStore => Target::Tidb,
            Self::Grow => Target::Pipeline,
        }
    }

    /// Whether there is more to see of it when it lasts longer than others have patience.
    fn may_be_long(self) -> bool {
        match self {
            Self::KillServer(_)
            | Self::PauseServer(_)
            | Self::PauseWorker(_)
            | Self::CutStore(_)
            | Self::CutLog(_)
            | Self::PauseBroker(_)
            | Self::PauseStore => true,
            Self::RestartServer(_)
            | Self::RestartAll
            | Self::KillWorker(_)
            | Self::CutServer(_)
            | Self::DelayServer(_)
            | Self::DelayStore(_)
            | Self::DelayLog(_)
            | Self::KillBroker(_)
            | Self::KillStore
            | Self::Grow => false,
        }
    }
}

/// Draws faults for about that long. There must be a node and a worker, and one of the kinds that are wanted.
pub fn draw(seed: u64, length: Duration, scope: &Scope) -> Vec<Step> {
    let mut random = fastrand::Rng::with_seed(seed);
    // Dealt like cards, so that every kind comes before one comes again.
    let mut deck = Vec::new();
    let mut deal = |random: &mut fastrand::Rng| {
        if deck.is_empty() {
            deck = kinds(random, scope);
            random.shuffle(&mut deck);
        }
        let fault = deck.pop().unwrap_or(Fault::KillServer(0));
        let is_long = fault.may_be_long() && random.u32(0..4) == 0;
        let lasts = random.u64(if is_long { LONG } else { SHORT });
        (fault, Duration::from_millis(lasts))
    };
    let mut steps = Vec::new();
    let mut at = Duration::ZERO;
    let mut kept = None;
    loop {
        let after = Duration::from_millis(random.u64(PAUSE));
        let first = kept.take().unwrap_or_else(|| deal(&mut random));
        let mut faults = vec![first];
        if random.u32(0..3) == 0 {
            let second = deal(&mut random);
            if first.0.target().overlaps(second.0.target()) {
                kept = Some(second);
            } else {
                faults.push(second);
            }
        }
        let step = Step { after, faults };
        at += step.after + step.lasts();
        if at > length {
            return steps;
        }
        steps.push(step);
    }
}

/// One fault of each kind, each of somebody.
fn kinds(random: &mut fastrand::Rng, scope: &Scope) -> Vec<Fault> {
    let mut node = |kind: fn(usize) -> Fault| kind(random.usize(0..scope.nodes));
    let mut kinds = vec![
        node(Fault::KillServer),
        node(Fault::PauseServer),
        node(Fault::RestartServer),
        node(Fault::CutServer),
        node(Fault::DelayServer),
    ];
    if scope.brokers > 0 {
        kinds.extend([
            node(Fault::CutStore),
            node(Fault::DelayStore),
            node(Fault::CutLog),
            node(Fault::DelayLog),
            Fault::RestartAll,
            Fault::KillStore,
            Fault::PauseStore,
            Fault::Grow,
            Fault::KillBroker(random.usize(0..usize::from(scope.brokers))),
            Fault::PauseBroker(random.usize(0..usize::from(scope.brokers))),
        ]);
    }
    kinds.push(Fault::KillWorker(random.usize(0..scope.workers)));
    kinds.push(Fault::PauseWorker(random.usize(0..scope.workers)));
    kinds.retain(|fault| scope.only.is_empty() || scope.only.iter().any(|name| name == fault.name()));
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Scope {
        Scope {
            nodes: 3,
            workers: 4,
            brokers: 3,
            only: Vec::new(),
        }
    }

    #[test]
    fn a_seed_gives_one_plan_and_another_seed_another() {
        let length = Duration::from_mins(2);
        assert_eq!(draw(3, length, &cluster()), draw(3, length, &cluster()));
        assert_ne!(draw(3, length, &cluster()), draw(4, length, &cluster()));
        let total: Duration = draw(3, length, &cluster())
            .iter()
            .map(|step| step.after + step.lasts())
            .sum();
        assert!(total <= length && !draw(3, length, &cluster()).is_empty());
    }

    #[test]
    fn a_longer_plan_begins_like_a_shorter_one() {
        let short = draw(9, Duration::from_mins(1), &cluster());
        assert_eq!(draw(9, Duration::from_mins(3), &cluster())[..short.len()], short);
    }

    #[test]
    fn every_kind_comes_before_one_comes_again() {
        let kinds = kinds(&mut fastrand::Rng::with_seed(1), &cluster()).len();
        let steps = draw(2, Duration::from_mins(10), &cluster());
        let mut seen: Vec<_> = steps.iter().flat_map(|step| &step.faults).collect();
        assert!(seen.len() > 2 * kinds);
        seen.truncate(kinds);
        let mut seen: Vec<_> = seen
            .iter()
            .map(|(fault, _)| std::mem::discriminant(fault))
            .collect();
        for at in (1..seen.len()).rev() {
            let last = seen.remove(at);
            assert!(!seen.contains(&last));
        }
    }

    #[test]
    fn nothing_happens_to_one_thing_twice_at_once() {
        for seed in 0..50 {
            for step in draw(seed, Duration::from_mins(5), &cluster()) {
                if let [(first, _), (second, _)] = step.faults[..] {
                    assert!(!first.target().overlaps(second.target()), "{first}, {second}");
                }
            }
        }
    }

    #[test]
    fn only_what_is_wanted_happens() {
        let scope = Scope {
            only: vec!["pause-server".to_owned(), "grow".to_owned()],
            ..cluster()
        };
        let steps = draw(1, Duration::from_mins(2), &scope);
        let mut faults = steps.iter().flat_map(|step| &step.faults);
        assert!(faults.all(|(fault, _)| matches!(fault, Fault::PauseServer(_) | Fault::Grow)));
        assert!(cluster().names().contains(&"kill-broker"));
    }

    #[test]
    fn an_embedded_server_has_no_brokers_to_kill() {
        let scope = Scope {
            nodes: 1,
            brokers: 0,
            ..cluster()
        };
        for step in draw(1, Duration::from_mins(5), &scope) {
            for (fault, _) in step.faults {
                assert!(matches!(fault.target(), Target::Server(0) | Target::Worker(_)));
                assert!(!matches!(
                    fault,
                    Fault::CutStore(_) | Fault::DelayStore(_) | Fault::CutLog(_) | Fault::DelayLog(_)
                ));
            }
        }
    }
}
