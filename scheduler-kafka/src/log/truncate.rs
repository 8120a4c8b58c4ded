//! Truncations of many partitions share a request.

use std::sync::Arc;

use rdkafka::admin::AdminClient;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use scheduler_core::id::{Offset, ShardId};
use scheduler_core::port::log::LogError;
use tokio::sync::oneshot;

use super::gather::Gathered;
use super::topics::{Topics, index};
use crate::context::Plain;
use crate::error::{Problem, about, unavailable};

/// The most partitions of one request.
const BATCH: usize = 5_000;

struct Wish {
    shard: ShardId,
    name: Arc<str>,
    partition: i32,
    before: i64,
    done: oneshot::Sender<Result<(), KafkaError>>,
}

/// Gathers truncations while one request is under way, and makes them in the next.
pub(crate) struct Truncator {
    topics: Arc<Topics>,
    admin: Arc<AdminClient<Plain>>,
    wishes: Gathered<Wish>,
}

impl Truncator {
    pub(crate) fn new(topics: Arc<Topics>, admin: Arc<AdminClient<Plain>>) -> Self {
        Self {
            topics,
            admin,
            wishes: Gathered::new(),
        }
    }

    pub(crate) async fn truncate(
        self: &Arc<Self>,
        shard: ShardId,
        name: Arc<str>,
        before: Offset,
    ) -> Result<(), LogError> {
        let (done, answer) = oneshot::channel();
        let wish = Wish {
            shard,
            name,
            partition: index(shard)?,
            before: i64::try_from(before.0).map_err(unavailable)?,
            done,
        };
        if self.wishes.add(wish) {
            // A task of its own: who asked may stop waiting, the others may not.
            tokio::spawn(self.clone().work());
        }
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(KafkaError::AdminOp(code))) => Err(about(shard, code)),
            Ok(Err(error)) => Err(unavailable(error)),
            Err(_) => Err(unavailable(Problem("the log was closed".to_owned()))),
        }
    }

    async fn work(self: Arc<Self>) {
        while let Some(batch) = self.wishes.take(BATCH) {
            self.request(batch).await;
        }
    }

    async fn request(&self, mut wishes: Vec<Wish>) {
        // A partition may be in a request only once: the furthest wish counts for all.
        wishes.sort_by_key(|wish| (wish.shard, wish.before));
        let mut list = TopicPartitionList::with_capacity(wishes.len());
        for (at, wish) in wishes.iter().enumerate() {
            if wishes.get(at + 1).is_some_and(|next| next.shard == wish.shard) {
                continue;
            }
            let offset = KafkaOffset::Offset(wish.before);
            if let Err(error) = list.add_partition_offset(&wish.name, wish.partition, offset) {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a truncation cannot be asked for"
                );
            }
        }
        let result = self.admin.delete_records(&list, &self.topics.options()).await;
        let errors = result.map(|list| {
            let mut answers: Vec<(String, i32, Option<KafkaError>)> = Vec::with_capacity(list.count());
            for element in list.elements() {
                let problem = element.error().err();
                answers.push((element.topic().to_owned(), element.partition(), problem));
            }
            answers.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
            answers
        });
        for wish in wishes {
            let answer = match &errors {
                Err(error) => Err(error.clone()),
                Ok(answers) => {
                    let key = (&*wish.name, wish.partition);
                    let found = answers.binary_search_by(|(name, at, _)| (name.as_str(), *at).cmp(&key));
                    match found.ok().map(|at| &answers[at].2) {
                        Some(None) => Ok(()),
                        Some(Some(error)) => Err(KafkaError::AdminOp(
                            error.rdkafka_error_code().unwrap_or(Code::Unknown),
                        )),
                        None => Err(KafkaError::AdminOp(Code::Unknown)),
                    }
                }
            };
            // Nobody waits any more: what was given up is given up.
            let _ = wish.done.send(answer);
        }
    }
}
