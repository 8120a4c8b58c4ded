//! Placement as a consumer group does it: a coordinator that gives every shard to one node, takes it away, and gives up on the silent.

use std::collections::{BTreeMap, BTreeSet};

use scheduler_core::id::Partition;

use crate::coverage::Point;
use crate::node::Mail;
use crate::world::{Happening, World};

/// One life of a node, as the coordinator knows it.
pub(crate) type Member = (usize, u32);

/// Something for the coordinator.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Join(Member),
    /// The member has been silent too long, if it still is.
    Leave(Member),
    /// The member says goodbye.
    Bye(Member),
    Released(Member, Partition),
    /// The member should have let go by now.
    RevokeIsOver(Partition, u64),
    Rebalance,
    /// There may be more partitions than before.
    Look,
}

#[derive(Debug, Default)]
pub(crate) struct Placement {
    members: BTreeSet<Member>,
    owners: BTreeMap<Partition, Owner>,
    turn: usize,
    revocations: u64,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    member: Member,
    /// The number of the revocation that is under way.
    revoking: Option<u64>,
}

impl Placement {
    pub(crate) fn owner(&self, partition: Partition) -> Option<Member> {
        self.owners.get(&partition).map(|owner| owner.member)
    }

    /// Nodes that own anything.
    pub(crate) fn owning(&self) -> BTreeSet<Member> {
        self.owners.values().map(|owner| owner.member).collect()
    }
}

impl World {
    pub(crate) fn placement_step(&mut self, step: Step) {
        match step {
            Step::Join(member) => {
                if self.nodes[member.0].life == member.1 && self.nodes[member.0].is_up {
                    self.placement.members.insert(member);
                }
            }
            Step::Leave(member) => {
                let node = &self.nodes[member.0];
                let is_well = node.life == member.1 && node.is_up && !node.is_paused;
                if is_well || !self.placement.members.remove(&member) {
                    return;
                }
                self.give_up_on(member);
                // If it is only paused, it hears of it when it goes on, and joins again.
                self.join_later(member);
            }
            Step::Bye(member) => {
                self.placement.members.remove(&member);
                self.give_up_on(member);
            }
            Step::Released(member, partition) => {
                self.oracle.placement_is_told(member.0, partition);
                if self.placement.owner(partition) == Some(member) {
                    self.placement.owners.remove(&partition);
                }
            }
            Step::RevokeIsOver(partition, number) => {
                let Some(owner) = self.placement.owners.get(&partition).copied() else {
                    return;
                };
                if owner.revoking != Some(number) {
                    return;
                }
                self.coverage.hit(Point::RevokeTimeout);
                self.oracle.given_up(owner.member.0, partition, self.now);
                self.placement.owners.remove(&partition);
                self.placement_mail(owner.member, Mail::Lose(vec![partition]));
            }
            Step::Look => (),
            Step::Rebalance => {
                self.placement.turn += 1;
                self.coverage.hit(Point::Rebalanced);
            }
        }
        self.place();
    }

    fn join_later(&mut self, member: Member) {
        let at = self.now + self.rng.range(100, 2_000);
        let node = &self.nodes[member.0];
        let resumes = node.resumes_at.max(at);
        if node.life == member.1 && node.is_up {
            self.queue.push(resumes, Happening::Placement(Step::Join(member)));
        }
    }

    fn give_up_on(&mut self, member: Member) {
        let owners = &mut self.placement.owners;
        let lost: Vec<Partition> = owners
            .iter()
            .filter(|(_, owner)| owner.member == member)
            .map(|(partition, _)| *partition)
            .collect();
        owners.retain(|_, owner| owner.member != member);
        if !lost.is_empty() {
            self.placement_mail(member, Mail::Lose(lost));
        }
    }

    /// Moves every shard towards where it belongs.
    fn place(&mut self) {
        let members: Vec<Member> = self.placement.members.iter().copied().collect();
        if members.is_empty() {
            return;
        }
        for partition in (0..self.partitions).map(Partition) {
            let shift = if self.plan.together {
                0
            } else {
                partition.0 as usize
            };
            let wanted = members[(self.placement.turn + shift) % members.len()];
            match self.placement.owners.get(&partition).copied() {
                None => {
                    let owner = Owner {
                        member: wanted,
                        revoking: None,
                    };
                    self.placement.owners.insert(partition, owner);
                    self.placement_mail(wanted, Mail::Assign(vec![partition]));
                    if self.rng.chance(50) {
                        self.placement_mail(wanted, Mail::Assign(vec![partition]));
                    }
                }
                Some(owner) if owner.member != wanted && owner.revoking.is_none() => {
                    self.placement.revocations += 1;
                    let number = self.placement.revocations;
                    let revoking = Owner {
                        revoking: Some(number),
                        ..owner
                    };
                    self.placement.owners.insert(partition, revoking);
                    self.placement_mail(owner.member, Mail::Revoke(vec![partition]));
                    let over = self.now + self.plan.revoke_timeout();
                    self.queue
                        .push(over, Happening::Placement(Step::RevokeIsOver(partition, number)));
                }
                Some(_) => (),
            }
        }
    }

    /// What the coordinator says reaches a node in order, sooner or later.
    fn placement_mail(&mut self, member: Member, mail: Mail) {
        let (node, life) = member;
        let delay = if self.is_healed || !self.rng.chance(100) {
            self.rng.range(1, 50)
        } else {
            self.rng.range(50, 5_000)
        };
        let at = (self.now + delay).max(self.nodes[node].placement_mail_at);
        self.nodes[node].placement_mail_at = at;
        self.queue.push(at, Happening::Mail { node, life, mail });
    }
}
