//! What becomes of a node whose driver panics. The runtime's `actor/supervise.rs`.

use scheduler_core::host::Effects;
use scheduler_core::time::Timestamp;

use super::Mail;
use crate::coverage::Point;
use crate::world::World;

/// How long it does nothing, at least and at most.
const PAUSE: (u64, u64) = (1_000, 8_000);

impl World {
    /// What drives a node's machines panics: all that they knew is gone, and the process lives on.
    pub(crate) fn panic_node(&mut self, index: usize) {
        self.trace
            .note(&[15, index as u64], || format!("node {index} panics"));
        self.oracle.node_gone(index);
        let node = &mut self.nodes[index];
        node.host = node.host.afresh();
        node.effects = Effects::default();
        node.watched = 0;
        node.polls.clear();
        node.reading.clear();
        let sessions = std::mem::take(&mut node.sessions);
        if !std::mem::replace(&mut node.lies_low, true) {
            let (least, most) = PAUSE;
            let at = self.now + self.rng.range(least, most);
            self.mail_at(index, at, Mail::ComeUp);
        }
        for telling in sessions.into_values() {
            self.hang_up(telling.conn);
        }
    }

    /// Takes mail of a node that does nothing after a panic: what must not be missed.
    pub(super) fn take_low(&mut self, index: usize, now: Timestamp, mail: Mail) {
        let node = &mut self.nodes[index];
        match mail {
            Mail::ComeUp => {
                node.lies_low = false;
                if !node.drained {
                    self.coverage.hit(Point::CameUp);
                    self.with_host(index, now, |host, effects| host.come_up(now, effects));
                }
            }
            Mail::Assign(_) if node.drained => (),
            Mail::Assign(partitions) => node.host.note_assigned(&partitions),
            Mail::Lose(partitions) => node.host.note_unassigned(&partitions),
            Mail::Revoke(partitions) => {
                node.host.note_unassigned(&partitions);
                // Nothing of them is here.
                for partition in partitions {
                    self.released(index, partition);
                }
            }
            Mail::Open(session, _) | Mail::Close(session) => {
                if let Some(telling) = node.sessions.remove(&session) {
                    self.hang_up(telling.conn);
                }
            }
            // The checkpointer and releases under way are not the driver's.
            Mail::Stored(..)
            | Mail::Again(_)
            | Mail::Policy(_)
            | Mail::Pause(_)
            | Mail::Drain
            | Mail::DrainIsOver => self.take(index, now, mail),
            _ => (),
        }
    }
}
