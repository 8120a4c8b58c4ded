//! A session of a worker, and what a server says to it.

use std::time::Duration;

use bytes::Bytes;
use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::session_request::Kind as Request;
use scheduler_proto::worker::session_response::Kind as Response;
use scheduler_proto::worker::{Hello, Lease, Leases, Report, Settled, Welcome};
use scheduler_sdk::session::{Input, LeaseKey, Output, Session, SessionConfig};

pub(crate) struct World {
    pub(crate) session: Session,
    pub(crate) now: Duration,
}

pub(crate) fn key(partition: u32, offset: u64, attempt: u32) -> LeaseKey {
    LeaseKey {
        partition,
        offset,
        epoch: 1,
        attempt,
    }
}

pub(crate) fn lease(key: LeaseKey) -> Lease {
    Lease {
        r#ref: Some(key.into()),
        ..Lease::default()
    }
}

pub(crate) fn leases(keys: &[LeaseKey]) -> Response {
    Response::Leases(Leases {
        leases: keys.iter().map(|&key| lease(key)).collect(),
    })
}

pub(crate) fn settled(partition: u32, epoch: u32, count: u64) -> Response {
    Response::Settled(Settled {
        partition,
        epoch,
        count,
    })
}

pub(crate) fn report(key: LeaseKey, outcome: Outcome) -> Report {
    Report {
        r#ref: Some(key.into()),
        outcome: Some(outcome),
    }
}

pub(crate) fn done() -> Outcome {
    Outcome::Succeeded(Bytes::from_static(b"1"))
}

impl World {
    pub(crate) fn new(concurrency: u32) -> Self {
        let config = SessionConfig {
            application: "app".into(),
            pipeline: "ocr".into(),
            worker_id: [7; 16],
            name: "w".into(),
            concurrency,
            max_unsettled: 6,
            max_unsettled_bytes: 1 << 20,
        };
        Self {
            session: Session::new(config),
            now: Duration::from_secs(1),
        }
    }

    pub(crate) fn input(&mut self, inputs: impl IntoIterator<Item = Input>) -> Vec<Output> {
        let mut out = Vec::new();
        for input in inputs {
            self.session.handle(input, &mut out);
        }
        self.session.flush(self.now, &mut out);
        out
    }

    pub(crate) fn hear(&mut self, response: Response) -> Vec<Output> {
        self.input([Input::Received(response)])
    }

    pub(crate) fn end(&mut self, lease: LeaseKey, outcome: Outcome) -> Vec<Output> {
        self.input([Input::Ended { lease, outcome }])
    }

    pub(crate) fn greet(&mut self) -> Hello {
        match self.input([Input::Connected]).remove(0) {
            Output::Send(Request::Hello(hello)) => hello,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn welcome(&mut self) -> Vec<Output> {
        self.hear(Response::Welcome(Welcome {
            definition: Bytes::from_static(b"{}"),
            heartbeat_ms: 3000,
        }))
    }

    /// Connected and welcome, its first sign of life sent.
    pub(crate) fn open(concurrency: u32) -> Self {
        let mut world = Self::new(concurrency);
        world.greet();
        world.welcome();
        world
    }
}

pub(crate) fn sent_reports(out: &[Output]) -> Vec<Report> {
    let reports = out.iter().filter_map(|output| match output {
        Output::Send(Request::Reports(reports)) => Some(reports.reports.clone()),
        _ => None,
    });
    reports.flatten().collect()
}

pub(crate) fn credits(out: &[Output]) -> u32 {
    out.iter()
        .map(|output| {
            if let Output::Send(Request::Credit(credits)) = output {
                *credits
            } else {
                0
            }
        })
        .sum()
}
