//! Lists of tasks, partition by partition from their owners.

use std::time::Duration;

use scheduler_core::id::{Offset, Partition, ShardId};
use scheduler_core::port::gateway::{ApiError, Page, PageCursor, TaskFilter, TaskView};

use super::ClusterNode;
use crate::directory::Served;

/// Partitions that one page looks at; a filter that lets little through gets short pages.
const MOST_PARTITIONS: u32 = 64;
/// A list may take a few looks at the log.
const LONGEST_LIST: Duration = Duration::from_secs(10);

impl ClusterNode {
    pub(super) async fn list(
        &self,
        served: &Served,
        filter: &TaskFilter,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<TaskView>, ApiError> {
        let count = served.pipeline.partitions;
        let first = after.map_or(0, |cursor| cursor.partition.0);
        let partitions = match filter.partition {
            Some(partition) => partition.0.max(first)..count.min(partition.0.saturating_add(1)),
            None => first..count,
        };
        let end = partitions.end;
        let mut items: Vec<TaskView> = Vec::new();
        for partition in partitions {
            if partition - first >= MOST_PARTITIONS {
                let next = PageCursor {
                    partition: Partition(partition),
                    offset: Offset(u64::MAX),
                };
                return Ok(Page {
                    items,
                    next: Some(next),
                });
            }
            let after = after.filter(|cursor| cursor.partition.0 == partition);
            let page = self
                .list_of(served, filter, Partition(partition), after, limit - items.len())
                .await?;
            items.extend(page.items);
            if let Some(next) = page.next {
                return Ok(Page {
                    items,
                    next: Some(next),
                });
            }
            if items.len() >= limit && partition + 1 < end {
                let next = PageCursor {
                    partition: Partition(partition + 1),
                    offset: Offset(u64::MAX),
                };
                return Ok(Page {
                    items,
                    next: Some(next),
                });
            }
        }
        Ok(Page { items, next: None })
    }

    async fn list_of(
        &self,
        served: &Served,
        filter: &TaskFilter,
        partition: Partition,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<TaskView>, ApiError> {
        let filter = &TaskFilter {
            partition: Some(partition),
            ..filter.clone()
        };
        let path = &served.pipeline.path;
        let shard = ShardId::new(served.pipeline.id, partition);
        let asked = self
            .ask_owner(served, shard, LONGEST_LIST, |owner| async move {
                owner.tasks(path, filter, after, limit).await
            })
            .await;
        match asked {
            // On its way: what is in the store and in the log is there all the same.
            Err(ApiError::Unavailable { .. }) => {
                self.local
                    .list(served, vec![partition], filter, after, limit)
                    .await
            }
            answer => answer,
        }
    }
}
