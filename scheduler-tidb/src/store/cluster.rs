//! What nodes know of each other: who lives, who owns what, and what changed in the catalog.

use std::time::Duration;

use async_trait::async_trait;
use scheduler_core::id::{Epoch, NodeId, Partition, PipelineId};
use scheduler_core::port::catalog::CatalogError;
use scheduler_core::port::cluster::{CatalogChanges, CatalogVersion, ClusterStore, Member, Owner, Removed};
use scheduler_core::port::store::StoreError;
use sqlx::{Connection, MySqlConnection};

use super::TidbStore;
use super::catalog::Kind;
use super::snapshot::{changed_after, key_hash, name};
use crate::database::tries;
use crate::error::Fail;

/// Longer lives are cut to this: an interval that every moment can be moved by.
const LONGEST_TTL: Duration = Duration::from_hours(365 * 24);

/// Number, name, address, and whether it lives.
type NodeRow = (Vec<u8>, Vec<u8>, Vec<u8>, bool);

fn damaged(problem: &'static str) -> StoreError {
    StoreError::Damaged {
        place: "the rows of nodes, owners and removals".to_owned(),
        source: problem.into(),
    }
}

fn node_id(bytes: &[u8]) -> Result<NodeId, StoreError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| damaged("a node's number has not 16 bytes"))?;
    Ok(NodeId(u128::from_be_bytes(bytes)))
}

async fn beat(
    connection: &mut MySqlConnection,
    member: &Member,
    ttl: Duration,
) -> Result<Vec<Member>, Fail<StoreError>> {
    let micros = u64::try_from(ttl.min(LONGEST_TTL).as_micros()).unwrap_or(u64::MAX);
    let id = member.id.0.to_be_bytes();
    sqlx::query(
        "INSERT INTO node (id, name, address, expire_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND) \
         ON DUPLICATE KEY UPDATE name = VALUES(name), address = VALUES(address), expire_at = VALUES(expire_at)",
    )
    .bind(&id[..])
    .bind(member.name.as_bytes())
    .bind(member.address.as_bytes())
    .bind(micros)
    .execute(&mut *connection)
    .await?;
    // The one that beats lives, however short its time.
    let rows: Vec<NodeRow> = sqlx::query_as(
        "SELECT id, name, address, (expire_at > UTC_TIMESTAMP(6) OR id = ?) FROM node ORDER BY id",
    )
    .bind(&id[..])
    .fetch_all(&mut *connection)
    .await?;
    let mut members = Vec::with_capacity(rows.len());
    let mut dead = false;
    for (id, name, address, lives) in rows {
        if !lives {
            dead = true;
            continue;
        }
        let text = |bytes| String::from_utf8(bytes).map_err(|_| damaged("a node's name is not UTF-8"));
        members.push(Member {
            id: node_id(&id)?,
            name: text(name)?,
            address: text(address)?,
        });
    }
    if dead {
        sqlx::query("DELETE FROM node WHERE expire_at < UTC_TIMESTAMP(6) - INTERVAL 1 HOUR LIMIT 100")
            .execute(&mut *connection)
            .await?;
    }
    Ok(members)
}

async fn changes(
    connection: &mut MySqlConnection,
    since: CatalogVersion,
) -> Result<CatalogChanges, Fail<CatalogError>> {
    let mut tx = connection.begin().await?;
    let (version, pruned): (u64, u64) =
        sqlx::query_as("SELECT version, pruned FROM catalog_version WHERE id = 1")
            .fetch_one(&mut *tx)
            .await?;
    let whole = since.0 == 0 || since.0 > version || since.0 < pruned;
    let mut answer = CatalogChanges {
        version: CatalogVersion(version),
        whole,
        ..CatalogChanges::default()
    };
    if whole || since.0 < version {
        let after = if whole { 0 } else { since.0 };
        let found = changed_after(&mut tx, after).await?;
        answer.clients = found.clients;
        answer.keys = found.keys;
        answer.applications = found.applications;
        answer.pipelines = found.pipelines;
    }
    if !whole && since.0 < version {
        let removed: Vec<(u8, Vec<u8>)> =
            sqlx::query_as("SELECT kind, name FROM catalog_removed WHERE changed > ? ORDER BY changed")
                .bind(since.0)
                .fetch_all(&mut *tx)
                .await?;
        for (kind, of) in removed {
            answer.removed.push(removal(kind, of)?);
        }
    }
    tx.commit().await?;
    Ok(answer)
}

fn removal(kind: u8, of: Vec<u8>) -> Result<Removed, StoreError> {
    const KEY: u8 = Kind::Key as u8;
    const APPLICATION: u8 = Kind::Application as u8;
    const PIPELINE: u8 = Kind::Pipeline as u8;
    match kind {
        KEY => Ok(Removed::Key(key_hash(of)?)),
        APPLICATION => {
            let mut names = of.split(|&byte| byte == b'/').map(|part| name(part.to_vec()));
            match (names.next(), names.next()) {
                (Some(client), Some(application)) => Ok(Removed::Application(client?, application?)),
                _ => Err(damaged("an application's removal has not two names")),
            }
        }
        PIPELINE => {
            let number = of
                .try_into()
                .map_err(|_| damaged("a pipeline's number has not 4 bytes"))?;
            Ok(Removed::Pipeline(PipelineId(u32::from_be_bytes(number))))
        }
        _ => Err(damaged("what was removed is unknown")),
    }
}

#[async_trait]
impl ClusterStore for TidbStore {
    async fn beat(&self, member: &Member, ttl: Duration) -> Result<Vec<Member>, StoreError> {
        tries!(self.database, |connection| beat(connection, member, ttl))
    }

    async fn leave(&self, node: NodeId) -> Result<(), StoreError> {
        tries!(self.database, |connection| async {
            sqlx::query("DELETE FROM node WHERE id = ?")
                .bind(&node.0.to_be_bytes()[..])
                .execute(connection)
                .await?;
            Ok(())
        })
    }

    async fn owners(&self, pipeline: PipelineId) -> Result<Vec<Owner>, StoreError> {
        let rows: Vec<(u32, Vec<u8>, u32)> = tries!(self.database, |connection| async {
            let query = sqlx::query_as(
                "SELECT partition_no, node, epoch FROM shard WHERE pipeline = ? AND released = FALSE ORDER BY partition_no",
            )
            .bind(pipeline.0);
            Ok::<_, Fail<StoreError>>(query.fetch_all(connection).await?)
        })?;
        let owner = |(partition, node, epoch): (u32, Vec<u8>, u32)| {
            Ok(Owner {
                partition: Partition(partition),
                node: node_id(&node)?,
                epoch: Epoch(epoch),
            })
        };
        rows.into_iter().map(owner).collect()
    }

    async fn changes(&self, since: CatalogVersion) -> Result<CatalogChanges, CatalogError> {
        tries!(self.database, |connection| changes(connection, since))
    }
}
