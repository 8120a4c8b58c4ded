//! Connections between workers and nodes: each keeps its order in either direction, and nothing else is sure.

use scheduler_core::session::SessionId;
use scheduler_proto::worker::session_request::Kind as Said;
use scheduler_proto::worker::session_response::Kind as Told;

use crate::coverage::Point;
use crate::node::Mail;
use crate::wire;
use crate::worker::Worker;
use crate::world::{Happening, World};

/// The number of a connection; none is used again.
pub(crate) type ConnId = usize;

/// How long it takes until both ends have noticed that a connection is silent.
const KEEP_ALIVE: (u64, u64) = (10_000, 20_000);

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) worker: usize,
    pub(crate) worker_life: u32,
    pub(crate) node: usize,
    pub(crate) node_life: u32,
    session: Option<SessionId>,
    /// Nothing passes any more, whether or not the ends know.
    is_cut: bool,
    up_at: u64,
    down_at: u64,
}

/// What travels.
#[derive(Debug)]
pub(crate) enum Frame {
    Up(Said),
    Down(Told),
    /// The node hears that the connection is gone.
    NodeHears,
    /// The worker hears that the connection is gone.
    WorkerHears,
}

impl World {
    pub(crate) fn connect(&mut self, worker: usize, node: usize) -> ConnId {
        self.conns.push(Conn {
            worker,
            worker_life: self.workers[worker].life,
            node,
            node_life: self.nodes[node].life,
            session: None,
            is_cut: false,
            up_at: self.now,
            down_at: self.now,
        });
        self.conns.len() - 1
    }

    pub(crate) fn net_delay(&mut self) -> u64 {
        if !self.is_healed && self.rng.chance(self.plan.net.slow) {
            return self.rng.range(1, self.plan.net.slowest);
        }
        self.rng.range(0, self.plan.net.latency)
    }

    pub(crate) fn send_to_node(&mut self, conn: ConnId, said: Said) {
        let at = self.now + self.net_delay();
        let at = at.max(self.conns[conn].up_at);
        self.conns[conn].up_at = at;
        self.queue.push(at, Happening::Frame(conn, Frame::Up(said)));
    }

    pub(crate) fn send_to_worker(&mut self, conn: ConnId, told: Told) {
        let at = self.now + self.net_delay();
        let at = at.max(self.conns[conn].down_at);
        self.conns[conn].down_at = at;
        self.queue.push(at, Happening::Frame(conn, Frame::Down(told)));
    }

    pub(crate) fn frame(&mut self, conn: ConnId, frame: Frame) {
        let Conn {
            worker,
            worker_life,
            node,
            node_life,
            session,
            is_cut,
            ..
        } = self.conns[conn];
        match frame {
            Frame::Up(_) | Frame::Down(_) if is_cut => (),
            Frame::Up(Said::Hello(said)) => {
                let lives = self.nodes[node].is_up && self.nodes[node].life == node_life;
                let hello = wire::hello(said);
                let Some(hello) = hello else {
                    return self.oracle.fail("protocol", "a hello is not well formed".into());
                };
                let session = if lives {
                    self.attach(node, conn, hello)
                } else {
                    None
                };
                if session.is_none() {
                    return self.hang_up(conn);
                }
                self.conns[conn].session = session;
            }
            Frame::Up(said) => {
                let Some(command) = wire::command(said) else {
                    return self
                        .oracle
                        .fail("protocol", "a message is not well formed".into());
                };
                if let Some(session) = session {
                    self.mail(node, node_life, Mail::Commands(session, vec![command]));
                }
            }
            Frame::Down(told) => self.worker_hears(worker, worker_life, conn, Some(told)),
            Frame::NodeHears => {
                if let Some(session) = session {
                    self.mail(node, node_life, Mail::Close(session));
                }
            }
            Frame::WorkerHears => self.worker_hears(worker, worker_life, conn, None),
        }
    }

    /// The connection breaks; both ends hear of it soon, what is on its way is lost.
    pub(crate) fn cut(&mut self, conn: ConnId) {
        if std::mem::replace(&mut self.conns[conn].is_cut, true) {
            return;
        }
        self.coverage.hit(Point::Cut);
        for frame in [Frame::NodeHears, Frame::WorkerHears] {
            let at = self.now + self.net_delay();
            self.queue.push(at, Happening::Frame(conn, frame));
        }
    }

    /// The connection goes silent; the ends find out by and by.
    pub(crate) fn silence(&mut self, conn: ConnId) {
        if std::mem::replace(&mut self.conns[conn].is_cut, true) {
            return;
        }
        self.coverage.hit(Point::Partitioned);
        for frame in [Frame::NodeHears, Frame::WorkerHears] {
            let at = self.now + self.rng.range(KEEP_ALIVE.0, KEEP_ALIVE.1);
            self.queue.push(at, Happening::Frame(conn, frame));
        }
    }

    /// The node closes the connection after what it has said: the worker hears that after the rest.
    pub(crate) fn hang_up(&mut self, conn: ConnId) {
        if self.conns[conn].is_cut {
            return;
        }
        let at = (self.now + self.net_delay()).max(self.conns[conn].down_at);
        self.queue.push(at, Happening::Frame(conn, Frame::WorkerHears));
        let at = self.now + self.net_delay();
        self.queue.push(at, Happening::Frame(conn, Frame::NodeHears));
    }

    /// The worker leaves the connection; the node hears that after what was said before.
    pub(crate) fn leave_conn(&mut self, conn: ConnId) {
        if self.conns[conn].is_cut {
            return;
        }
        let at = (self.now + self.net_delay()).max(self.conns[conn].up_at);
        self.queue.push(at, Happening::Frame(conn, Frame::NodeHears));
    }

    /// Connections that nobody has left.
    pub(crate) fn open_conns(&self) -> Vec<ConnId> {
        self.workers.iter().flat_map(Worker::conns).collect()
    }
}
