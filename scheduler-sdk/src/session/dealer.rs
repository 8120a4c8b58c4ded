//! Deals a worker's room out among the nodes that may have work for it.

use std::collections::BTreeMap;

/// Which node gets how much of the worker's room.
///
/// Every node has credit while there is enough of it. A node that has tasks and no credit says so once, and gets what is idle elsewhere:
/// another's unused credit is recalled, and dealt anew when the answer says how much of it is left. Nothing is asked or said
/// while nothing changes.
#[derive(Debug)]
pub(super) struct Dealer<K> {
    seats: BTreeMap<K, Seat>,
    /// Counts the credits that were dealt.
    turn: u64,
}

/// A node with which a session is open.
#[derive(Debug, Default)]
struct Seat {
    /// Credit given and not used.
    credits: u32,
    /// Whether tasks wait there.
    waits: bool,
    /// Whether unused credit was asked back and the answer has not come.
    recalling: bool,
    /// Whether it gets no more: it goes down.
    retired: bool,
    /// When it got credit last, in turns.
    served: u64,
}

impl Seat {
    fn takes(&self) -> bool {
        !self.recalling && !self.retired
    }
}

/// What is to be said to a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Deal<K> {
    Credit(K, u32),
    Recall(K),
}

impl<K: Ord + Clone> Dealer<K> {
    pub(super) fn new() -> Self {
        Self {
            seats: BTreeMap::new(),
            turn: 0,
        }
    }

    /// A session has begun: it has no credit, whatever an older one had.
    pub(super) fn join(&mut self, node: K) {
        self.seats.insert(node, Seat::default());
    }

    /// A session is over, and its credit void.
    pub(super) fn leave(&mut self, node: &K) {
        self.seats.remove(node);
    }

    /// The node goes down.
    pub(super) fn retire(&mut self, node: &K) {
        if let Some(seat) = self.seats.get_mut(node) {
            seat.retired = true;
        }
    }

    /// Leases came.
    pub(super) fn used(&mut self, node: &K, leases: u32) {
        if let Some(seat) = self.seats.get_mut(node) {
            seat.credits = seat.credits.saturating_sub(leases);
        }
    }

    /// The node says whether tasks wait there.
    pub(super) fn waiting(&mut self, node: &K, waits: bool) {
        if let Some(seat) = self.seats.get_mut(node) {
            seat.waits = waits;
        }
    }

    /// The node has given credit back.
    pub(super) fn recalled(&mut self, node: &K, count: u32) {
        if let Some(seat) = self.seats.get_mut(node) {
            seat.recalling = false;
            seat.credits = seat.credits.saturating_sub(count);
        }
    }

    /// Credit that is out.
    pub(super) fn credits(&self) -> u32 {
        self.seats.values().map(|seat| seat.credits).sum()
    }

    /// Deals `room` for so many tasks more.
    pub(super) fn deal(&mut self, room: u32, out: &mut Vec<Deal<K>>) {
        let mut given: BTreeMap<K, u32> = BTreeMap::new();
        for _ in 0..room {
            // Who has least is next; among those who have as little, whoever has tasks, and then whoever waits longest.
            let order = |seat: &Seat| (seat.credits, !seat.waits, seat.served);
            let seats = self.seats.iter_mut().filter(|(_, seat)| seat.takes());
            let Some((node, seat)) = seats.min_by_key(|(_, seat)| order(seat)) else {
                break;
            };
            self.turn += 1;
            seat.served = self.turn;
            seat.credits += 1;
            *given.entry(node.clone()).or_default() += 1;
        }
        out.extend(given.into_iter().map(|(node, credit)| Deal::Credit(node, credit)));
        self.recall(out);
    }

    /// Asks idle credit back, from as many nodes as there are that lack it.
    fn recall(&mut self, out: &mut Vec<Deal<K>>) {
        let lacks = |seat: &&Seat| seat.waits && seat.credits == 0 && seat.takes();
        let lacking = self.seats.values().filter(lacks).count();
        let asked = self.seats.values().filter(|seat| seat.recalling).count();
        for _ in asked..lacking {
            let idle = self
                .seats
                .iter_mut()
                .filter(|(_, seat)| seat.takes() && !seat.waits && seat.credits > 0);
            let Some((node, seat)) = idle.max_by_key(|(_, seat)| seat.credits) else {
                break;
            };
            seat.recalling = true;
            out.push(Deal::Recall(node.clone()));
        }
        let leaving = self
            .seats
            .iter_mut()
            .filter(|(_, seat)| seat.retired && !seat.recalling && seat.credits > 0);
        for (node, seat) in leaving {
            seat.recalling = true;
            out.push(Deal::Recall(node.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// A node as its machine behaves: credit meets tasks at once, and only change is told.
    #[derive(Debug, Default)]
    struct Node {
        tasks: u32,
        credit: u32,
        waits: bool,
        /// On their way to it and from it.
        inbox: VecDeque<Said>,
        outbox: VecDeque<Told>,
    }

    #[derive(Debug)]
    enum Said {
        Credit(u32),
        Recall,
    }

    #[derive(Debug)]
    enum Told {
        Leases(u32),
        Waiting(bool),
        Recalled(u32),
    }

    impl Node {
        fn dispatch(&mut self) {
            let leases = self.tasks.min(self.credit);
            self.tasks -= leases;
            self.credit -= leases;
            if leases > 0 {
                self.outbox.push_back(Told::Leases(leases));
            }
            if self.waits && self.credit > 0 {
                self.waits = false;
                self.outbox.push_back(Told::Waiting(false));
            } else if !self.waits && self.credit == 0 && self.tasks > 0 {
                self.waits = true;
                self.outbox.push_back(Told::Waiting(true));
            }
        }
    }

    struct World {
        dealer: Dealer<usize>,
        nodes: Vec<Node>,
        concurrency: u32,
        held: u32,
        done: u32,
        /// Messages so far, both ways.
        messages: u32,
    }

    impl World {
        fn new(nodes: usize, concurrency: u32) -> Self {
            let mut world = Self {
                dealer: Dealer::new(),
                nodes: (0..nodes).map(|_| Node::default()).collect(),
                concurrency,
                held: 0,
                done: 0,
                messages: 0,
            };
            (0..nodes).for_each(|node| world.dealer.join(node));
            world.deal();
            world
        }

        fn deal(&mut self) {
            let room = self.concurrency - self.held - self.dealer.credits();
            let mut deals = Vec::new();
            self.dealer.deal(room, &mut deals);
            for deal in deals {
                self.messages += 1;
                match deal {
                    Deal::Credit(node, credit) => self.nodes[node].inbox.push_back(Said::Credit(credit)),
                    Deal::Recall(node) => self.nodes[node].inbox.push_back(Said::Recall),
                }
            }
            assert!(self.held + self.dealer.credits() <= self.concurrency);
        }

        /// One message to a node, if there is one.
        fn say(&mut self, node: usize) -> bool {
            let there = &mut self.nodes[node];
            match there.inbox.pop_front() {
                None => return false,
                Some(Said::Credit(credit)) => there.credit += credit,
                Some(Said::Recall) => {
                    let unused = std::mem::take(&mut there.credit);
                    there.outbox.push_back(Told::Recalled(unused));
                }
            }
            there.dispatch();
            true
        }

        /// One message from a node, if there is one.
        fn hear(&mut self, node: usize) -> bool {
            let Some(told) = self.nodes[node].outbox.pop_front() else {
                return false;
            };
            self.messages += 1;
            match told {
                Told::Leases(leases) => {
                    self.dealer.used(&node, leases);
                    self.held += leases;
                    assert!(self.held <= self.concurrency);
                }
                Told::Waiting(waits) => self.dealer.waiting(&node, waits),
                Told::Recalled(count) => self.dealer.recalled(&node, count),
            }
            self.deal();
            true
        }

        fn arrive(&mut self, node: usize, tasks: u32) {
            self.nodes[node].tasks += tasks;
            self.nodes[node].dispatch();
        }

        fn finish(&mut self) {
            if self.held > 0 {
                self.held -= 1;
                self.done += 1;
                self.deal();
            }
        }

        /// Everything that is on its way arrives.
        fn calm(&mut self) {
            while (0..self.nodes.len()).any(|node| self.say(node) | self.hear(node)) {}
        }

        /// No node waits while the worker has room for its tasks, wherever that is.
        fn check_nobody_starves(&self) {
            let waiting: u32 = self.nodes.iter().map(|node| node.tasks).sum();
            assert!(waiting == 0 || self.held == self.concurrency, "{:?}", self.nodes);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arrive(usize, u32),
        Say(usize),
        Hear(usize),
        Finish,
        Reconnect(usize),
        Calm,
    }

    fn steps(nodes: usize) -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..nodes, 1..6u32).prop_map(|(node, tasks)| Step::Arrive(node, tasks)),
            (0..nodes).prop_map(Step::Say),
            (0..nodes).prop_map(Step::Hear),
            Just(Step::Finish),
            (0..nodes).prop_map(Step::Reconnect),
            Just(Step::Calm),
        ];
        proptest::collection::vec(step, 0..120)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn room_is_never_exceeded_and_finds_the_tasks(
            (nodes, steps) in (1..5usize).prop_flat_map(|nodes| (Just(nodes), steps(nodes))),
            concurrency in 1..9u32,
        ) {
            let mut world = World::new(nodes, concurrency);
            let mut arrived = 0;
            for step in steps {
                match step {
                    Step::Arrive(node, tasks) => {
                        arrived += tasks;
                        world.arrive(node, tasks);
                    }
                    Step::Say(node) => _ = world.say(node),
                    Step::Hear(node) => _ = world.hear(node),
                    Step::Finish => world.finish(),
                    Step::Reconnect(node) => {
                        // What was on its way is lost; leases that never arrived return to their queue.
                        let lost: u32 = world.nodes[node].outbox.iter().map(|told| match told {
                            Told::Leases(leases) => *leases,
                            _ => 0,
                        }).sum();
                        let tasks = world.nodes[node].tasks + lost;
                        world.nodes[node] = Node { tasks, ..Node::default() };
                        world.dealer.leave(&node);
                        world.dealer.join(node);
                        world.deal();
                        world.nodes[node].dispatch();
                    }
                    Step::Calm => {
                        world.calm();
                        world.check_nobody_starves();
                        let before = world.messages;
                        // Nothing happens: nothing is said.
                        world.deal();
                        world.calm();
                        prop_assert_eq!(world.messages, before);
                    }
                }
            }
            world.calm();
            world.check_nobody_starves();
            while world.held > 0 {
                world.finish();
                world.calm();
                world.check_nobody_starves();
            }
            prop_assert_eq!(world.done, arrived);
        }
    }

    #[test]
    fn a_worker_under_full_load_is_told_nothing_but_leases() {
        let mut world = World::new(3, 1);
        for node in 0..3 {
            world.arrive(node, 100);
        }
        world.calm();
        let before = world.messages;
        for _ in 0..90 {
            world.finish();
            world.calm();
        }
        // A credit and a message of leases for each.
        assert_eq!(world.messages - before, 180);
        // And each node has had its share.
        assert!(world.nodes.iter().all(|node| (68..72).contains(&node.tasks)));
    }

    #[test]
    fn a_node_that_goes_down_gives_its_credit_back() {
        let mut world = World::new(2, 4);
        world.calm();
        world.dealer.retire(&0);
        world.deal();
        world.calm();
        assert_eq!((world.nodes[0].credit, world.nodes[1].credit), (0, 4));
    }
}
