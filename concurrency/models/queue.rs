//! From those who append to the committer.

use scheduler_concurrency::Model;
use shuttle::sync::Arc;
use shuttle::sync::mpsc::{Sender, channel};
use shuttle::thread;

use super::subject::{Closed, Queue};

pub(crate) const ALL: &[Model] = &[
    what_was_taken_in_is_done_once_and_in_order,
    an_answer_needs_no_second_command,
    nobody_waits_for_an_answer_that_does_not_come,
];

fn what_was_taken_in_is_done_once_and_in_order() {
    let queue = Arc::new(Queue::new());
    let committer = {
        let queue = queue.clone();
        thread::spawn(move || {
            let mut done = Vec::new();
            while let Some(commands) = queue.take() {
                assert!(!commands.is_empty());
                done.extend(commands);
            }
            done
        })
    };
    let asking: Vec<_> = [1, 2]
        .map(|who| {
            let queue = queue.clone();
            thread::spawn(move || {
                let both = [(who, 1), (who, 2)];
                both.into_iter().filter(|command| queue.push(*command).is_ok()).collect::<Vec<_>>()
            })
        })
        .into();
    queue.close();
    let accepted: Vec<_> = asking.into_iter().flat_map(|thread| thread.join().expect("it has asked")).collect();
    let mut done = committer.join().expect("the committer ends");
    // In order for each that asks; among them there is none.
    done.sort_by_key(|(who, _)| *who);
    assert_eq!(done, accepted);
    assert_eq!(queue.push((3, 1)), Err(Closed));
}

fn an_answer_needs_no_second_command() {
    let queue = Arc::new(Queue::<Sender<()>>::new());
    let committer = {
        let queue = queue.clone();
        thread::spawn(move || {
            for command in std::iter::from_fn(|| queue.take()).flatten() {
                command.send(()).expect("it waits for its answer");
            }
        })
    };
    for _ in 0..2 {
        let (answer, done) = channel();
        assert_eq!(queue.push(answer), Ok(()));
        done.recv().expect("an answer comes");
    }
    queue.close();
    committer.join().expect("the committer ends");
}

/// Answers each command, and the second of them kills it.
fn commit(queue: &Queue<Sender<()>>) {
    let mut left = 2;
    while let Some(commands) = queue.take() {
        for command in commands {
            left -= 1;
            if left == 0 {
                queue.abandon();
                return;
            }
            // Whoever asked may have gone.
            let _ = command.send(());
        }
    }
}

fn nobody_waits_for_an_answer_that_does_not_come() {
    let queue = Arc::new(Queue::new());
    let committer = {
        let queue = queue.clone();
        thread::spawn(move || commit(&queue))
    };
    let asking: Vec<_> = [1, 2, 3]
        .map(|_| {
            let queue = queue.clone();
            thread::spawn(move || {
                let (answer, done) = channel();
                queue.push(answer).is_ok() && done.recv().is_ok()
            })
        })
        .into();
    let answered = asking.into_iter().filter_map(|thread| thread.join().ok()).filter(|done| *done).count();
    assert!(answered <= 1);
    committer.join().expect("the committer ends");
}
