use std::collections::BTreeSet;
use std::future::ready;
use std::sync::mpsc as blocking;

use scheduler_proto::worker::LeaseRef;
use tower::{BoxError, service_fn};

use super::*;
use crate::Worker;

fn leases(count: u64) -> Vec<Lease> {
    let lease = |offset| Lease {
        r#ref: Some(LeaseRef {
            partition: 0,
            offset,
            epoch: 1,
            attempt: 1,
        }),
        ..Lease::default()
    };
    (0..count).map(lease).collect()
}

fn tasks<F, R>(run: F) -> (Tasks, mpsc::Receiver<Said>)
where
    F: Fn(Attempt) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Bytes, BoxError>> + Send + 'static,
{
    let (said, heard) = mpsc::channel(64);
    let service = TaskService::new(service_fn(run));
    let worker = Worker::builder()
        .server("http://127.0.0.1:1")
        .application("a")
        .pipeline("p")
        .service(service.clone())
        .build()
        .unwrap();
    (Tasks::new(service, worker.options, said), heard)
}

/// The offsets of those that have ended, with how many of them came in batches.
async fn all_ended(
    tasks: &mut Tasks,
    heard: &mut mpsc::Receiver<Said>,
    count: usize,
) -> (BTreeSet<u64>, usize) {
    let (mut offsets, mut in_batches) = (BTreeSet::new(), 0);
    while offsets.len() < count {
        match heard.recv().await.unwrap() {
            Said::Ended { lease, was_quick, .. } => {
                tasks.ended(lease, was_quick);
                offsets.insert(lease.offset);
            }
            Said::Began {
                ended,
                waiting,
                were_quick,
            } => {
                tasks.began(&ended, waiting, were_quick);
                in_batches += ended.len();
                offsets.extend(ended.iter().map(|(lease, _)| lease.offset));
            }
            Said::Progressed { .. } => {}
        }
    }
    (offsets, in_batches)
}

#[tokio::test]
async fn tasks_go_in_batches_only_while_all_of_them_end_at_once() {
    let (mut tasks, mut heard) = tasks(|attempt: Attempt| async move {
        if attempt.context.priority() > 0 {
            tokio::task::yield_now().await;
        }
        Ok(Bytes::new())
    });
    tasks.start(leases(3));
    let (offsets, in_batches) = all_ended(&mut tasks, &mut heard, 3).await;
    assert_eq!(
        (offsets.len(), in_batches),
        (3, 0),
        "nothing is known of them yet"
    );

    tasks.quick = QUICK_IN_A_ROW;
    tasks.start(leases(100));
    let (offsets, in_batches) = all_ended(&mut tasks, &mut heard, 100).await;
    assert_eq!((offsets, in_batches), ((0..100).collect(), 100));

    tasks.quick = QUICK_IN_A_ROW;
    let mut one_waits = leases(10);
    one_waits[4].priority = 1;
    tasks.start(one_waits);
    let (offsets, in_batches) = all_ended(&mut tasks, &mut heard, 10).await;
    assert_eq!((offsets, in_batches), ((0..10).collect(), 9));
    assert_eq!(tasks.quick, 0, "one that waits ends batches");
    assert!(tasks.running.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_holds_up_no_other_task() {
    let (release, blocks) = blocking::channel::<()>();
    let blocks = Arc::new(Mutex::new(blocks));
    let (mut tasks, mut heard) = tasks(move |attempt: Attempt| {
        if attempt.context.task().1 == 0 {
            blocks.lock().unwrap().recv().unwrap();
        }
        ready(Ok(Bytes::new()))
    });
    tasks.quick = QUICK_IN_A_ROW;
    tasks.start(leases(20));
    tokio::time::sleep_until(tasks.next_help().unwrap()).await;
    tasks.help();
    assert_eq!(tasks.next_help(), None);
    let (offsets, _) = all_ended(&mut tasks, &mut heard, 19).await;
    assert_eq!(offsets, (1..20).collect());
    release.send(()).unwrap();
    let (offsets, in_batches) = all_ended(&mut tasks, &mut heard, 1).await;
    assert_eq!((offsets, in_batches), ([0].into(), 1));
}

#[tokio::test]
async fn a_task_is_stopped_though_its_batch_has_not_told_of_it() {
    let (mut tasks, mut heard) = tasks(|attempt: Attempt| async move {
        if attempt.context.task().1 == 1 {
            attempt.context.cancelled().cancelled().await;
        }
        Ok(Bytes::new())
    });
    tasks.quick = QUICK_IN_A_ROW;
    let batch = leases(3);
    let stopped = batch[1].r#ref.map(LeaseKey::from).unwrap();
    tasks.start(batch);
    tasks.cancel(stopped);
    let (offsets, _) = all_ended(&mut tasks, &mut heard, 3).await;
    assert_eq!(offsets.len(), 3);
    assert!(tasks.stopping.is_empty());
}

#[tokio::test]
async fn a_panic_in_a_batch_is_that_tasks_alone() {
    let (mut tasks, mut heard) = tasks(|attempt: Attempt| {
        assert_ne!(attempt.context.task().1, 1, "as wanted");
        ready(Ok(Bytes::new()))
    });
    tasks.quick = QUICK_IN_A_ROW;
    tasks.start(leases(3));
    let Some(Said::Began { ended, .. }) = heard.recv().await else {
        panic!("no batch");
    };
    let failed: Vec<_> = ended
        .iter()
        .filter(|(_, outcome)| matches!(outcome, Outcome::Failed(why) if why.contains("as wanted")))
        .map(|(lease, _)| lease.offset)
        .collect();
    assert_eq!((ended.len(), failed), (3, vec![1]));
}
