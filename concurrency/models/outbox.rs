//! Between an actor and the transport of a session.

use scheduler_concurrency::Model;
use scheduler_core::port::gateway::{EventSource as _, WorkerEvent};
use shuttle::future::block_on;
use shuttle::sync::Arc;
use shuttle::sync::mpsc::channel;
use shuttle::thread;

use super::subject::{Events, Outbox};

pub(crate) const ALL: &[Model] = &[
    what_is_put_arrives_in_order_and_then_it_ends,
    what_is_put_arrives_without_more,
    what_is_taken_back_is_not_given_out,
    without_a_transport_the_actor_keeps_what_it_has,
];

fn event(number: u32) -> WorkerEvent {
    WorkerEvent::Recalled(number)
}

/// Everything that the transport gets, until the end.
fn listen(outbox: Arc<Outbox>) -> Vec<WorkerEvent> {
    let mut events = Events(outbox);
    let mut got = Vec::new();
    while let Some(next) = block_on(events.next()) {
        got.extend(next);
    }
    got
}

fn what_is_put_arrives_in_order_and_then_it_ends() {
    let outbox = Arc::new(Outbox::default());
    let transport = {
        let outbox = outbox.clone();
        thread::spawn(move || listen(outbox))
    };
    assert!(!outbox.is_over());
    let mut batch = vec![event(1)];
    assert!(outbox.put(&mut batch) && batch.is_empty());
    batch.extend([event(2), event(3)]);
    assert!(outbox.put(&mut batch) && batch.is_empty());
    outbox.end();
    let got = transport.join().expect("the transport ends");
    assert_eq!(got, [event(1), event(2), event(3)]);
    assert!(outbox.is_over());
}

fn what_is_put_arrives_without_more() {
    let outbox = Arc::new(Outbox::default());
    let (heard, hears) = channel();
    let transport = {
        let mut events = Events(outbox.clone());
        thread::spawn(move || {
            while let Some(next) = block_on(events.next()) {
                heard.send(next).expect("the actor waits for it");
            }
        })
    };
    for number in 1..=2 {
        assert!(outbox.put(&mut vec![event(number)]));
        assert_eq!(hears.recv(), Ok(vec![event(number)]));
    }
    outbox.end();
    transport.join().expect("the transport ends");
}

fn what_is_taken_back_is_not_given_out() {
    let outbox = Arc::new(Outbox::default());
    let transport = {
        let outbox = outbox.clone();
        thread::spawn(move || listen(outbox))
    };
    assert!(outbox.put(&mut vec![event(1)]));
    assert!(outbox.put(&mut vec![event(2)]));
    let back = outbox.take_back();
    outbox.end();
    let mut all = transport.join().expect("the transport ends");
    all.extend(back);
    assert_eq!(all, [event(1), event(2)]);
}

fn without_a_transport_the_actor_keeps_what_it_has() {
    let outbox = Arc::new(Outbox::default());
    let transport = {
        let outbox = outbox.clone();
        thread::spawn(move || drop(Events(outbox)))
    };
    outbox.put(&mut vec![event(1)]);
    transport.join().expect("the transport goes");
    let mut batch = vec![event(2)];
    assert!(!outbox.put(&mut batch));
    assert_eq!(batch, [event(2)]);
}
