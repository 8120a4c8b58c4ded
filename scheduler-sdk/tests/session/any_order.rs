//! The session against a model of the server, in any order of what may happen.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use scheduler_proto::worker::Stop;
use scheduler_proto::worker::session_request::Kind as Request;
use scheduler_proto::worker::session_response::Kind as Response;
use scheduler_sdk::session::{Input, LeaseKey, Output};

use crate::world::{World, done, key, leases, settled};

/// What may happen next, in any order.
#[derive(Clone, Debug)]
enum Step {
    Connect,
    Lose,
    Lease { task: u64, attempt: u32 },
    End { nth: usize },
    Settle { part: usize },
    Stop { nth: usize },
    Moved,
    Drain,
    Recalled,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Connect),
        1 => Just(Step::Lose),
        8 => (0_u64..40, 1_u32..3).prop_map(|(task, attempt)| Step::Lease { task, attempt }),
        8 => any::<usize>().prop_map(|nth| Step::End { nth }),
        4 => any::<usize>().prop_map(|part| Step::Settle { part }),
        1 => any::<usize>().prop_map(|nth| Step::Stop { nth }),
        1 => Just(Step::Moved),
        1 => Just(Step::Recalled),
        1 => prop_oneof![9 => Just(Step::Lose), 1 => Just(Step::Drain)],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// The model server counts each partition's reports of a session and settles prefixes of them. Promised: tasks and
    /// credits stay within the concurrency, no report is forgotten before it is settled, none is told twice in one
    /// session, no lease is started twice.
    #[test]
    fn whatever_happens_no_report_is_lost(steps in prop::collection::vec(step(), 0..200)) {
        const CONCURRENCY: u32 = 3;
        let mut world = World::new(CONCURRENCY);
        let mut connected = false;
        let mut credit = 0_u32;
        let mut recalled = None;
        let mut running = BTreeSet::new();
        let mut started = BTreeSet::new();
        let mut owed = BTreeSet::new();
        let mut told: [Vec<LeaseKey>; 2] = Default::default();
        let mut covered = [0; 2];
        for step in steps {
            let input = match step {
                Step::Connect if !connected => {
                    connected = true;
                    (credit, recalled, told, covered) = Default::default();
                    world.input([Input::Connected]).into_iter().chain(world.welcome()).collect()
                }
                Step::Lose if connected => {
                    connected = false;
                    world.input([Input::Disconnected])
                }
                Step::Lease { task, attempt } if connected && credit > 0 => {
                    let key = key((task % 2) as u32, task, attempt);
                    // A token is unique for ever: a settled one does not come again.
                    if started.contains(&key) && !running.contains(&key) && !owed.contains(&key) {
                        continue;
                    }
                    credit -= 1;
                    world.hear(leases(&[key]))
                }
                Step::End { nth } if !running.is_empty() => {
                    let ended = *running.iter().nth(nth % running.len()).unwrap();
                    running.remove(&ended);
                    owed.insert(ended);
                    world.end(ended, done())
                }
                Step::Settle { part } if connected => {
                    let partition = part % 2;
                    let known = told[partition].len();
                    covered[partition] = covered[partition].max(part / 2 % (known + 1));
                    for key in &told[partition][..covered[partition]] {
                        owed.remove(key);
                    }
                    world.hear(settled(partition as u32, 1, covered[partition] as u64))
                }
                Step::Stop { nth } if connected && !running.is_empty() => {
                    let stopped = *running.iter().nth(nth % running.len()).unwrap();
                    world.hear(Response::Stop(Stop { refs: vec![stopped.into()] }))
                }
                Step::Moved if connected => world.hear(Response::Moved(0)),
                Step::Drain => world.input([Input::Drain]),
                Step::Recalled if connected && recalled.is_some() => {
                    world.hear(Response::Recalled(recalled.take().unwrap_or_default()))
                }
                _ => continue,
            };
            for output in input {
                match output {
                    Output::Start(leases) => {
                        for lease in leases {
                            let key = LeaseKey::from(lease.r#ref.unwrap());
                            running.insert(key);
                            prop_assert!(started.insert(key), "started twice");
                        }
                    }
                    Output::Send(Request::Credit(more)) => credit += more,
                    Output::Send(Request::Drain(_)) => recalled = Some(std::mem::take(&mut credit)),
                    Output::Drained => prop_assert!(!connected || recalled.unwrap_or_default() == 0, "a lease may be on its way"),
                    Output::Send(Request::Hello(hello)) => {
                        let held: BTreeSet<_> = hello.held.iter().map(|&held| LeaseKey::from(held)).collect();
                        prop_assert_eq!(&held, &running);
                        for report in hello.reported {
                            let key = LeaseKey::from(report.r#ref.unwrap());
                            told[key.partition as usize].push(key);
                        }
                    }
                    Output::Send(Request::Reports(reports)) => {
                        for report in reports.reports {
                            let key = LeaseKey::from(report.r#ref.unwrap());
                            let told = &mut told[key.partition as usize];
                            prop_assert!(!told.contains(&key), "told twice");
                            told.push(key);
                        }
                    }
                    Output::Reconnect(_) => connected = false,
                    Output::Warn(what) => prop_assert!(false, "{}", what),
                    _ => {}
                }
            }
            let promised = if connected { credit } else { 0 };
            prop_assert!(running.len() as u32 + promised <= CONCURRENCY, "more promised than there is room");
            prop_assert_eq!(world.session.running(), running.len());
            prop_assert_eq!(world.session.unsettled(), owed.len());
            if connected {
                let told: BTreeSet<_> = told.iter().flatten().copied().collect();
                prop_assert!(owed.is_subset(&told), "a report was not told");
            }
        }
    }
}
