//! Requests that go together.

use scheduler_concurrency::Model;
use shuttle::sync::mpsc::{Sender, channel};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

use super::subject::Gathered;

pub(crate) const ALL: &[Model] = &[everybody_is_answered_by_one_at_a_time];

/// More come than one request takes.
const MOST: usize = 2;

fn work(gathered: &Gathered<Sender<()>>, under_way: &Mutex<()>) {
    while let Some(batch) = gathered.take(MOST) {
        let only = under_way.try_lock().expect("one request is under way at a time");
        thread::yield_now();
        for one in batch {
            one.send(()).expect("it waits for its answer");
        }
        drop(only);
    }
}

fn everybody_is_answered_by_one_at_a_time() {
    let gathered = Arc::new(Gathered::new());
    let under_way = Arc::new(Mutex::new(()));
    let asking: Vec<_> = [1, 2, 3]
        .map(|_| {
            let (gathered, under_way) = (gathered.clone(), under_way.clone());
            thread::spawn(move || {
                let (answer, done) = channel();
                let worker = gathered.add(answer).then(|| thread::spawn(move || work(&gathered, &under_way)));
                done.recv().expect("an answer comes");
                if let Some(worker) = worker {
                    worker.join().expect("the work ends");
                }
            })
        })
        .into();
    for thread in asking {
        thread.join().expect("it was answered");
    }
}
