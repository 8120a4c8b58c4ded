//! The contract of [`Catalog`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use scheduler_core::id::PipelineId;
use scheduler_core::name::PipelinePath;
use scheduler_core::policy::{PipelinePolicy, RetryPolicy, Timeouts};
use scheduler_core::port::catalog::{
    ApiKey, ApiKeyHash, Application, Catalog, CatalogError, Client, Deployment, Pipeline, Replicas,
};
use scheduler_core::port::log::TopicSettings;

use super::{StoreWorld, at, name};

/// Makes a test of each sentence of the contract; takes an expression that makes a fresh [`StoreWorld`].
#[macro_export]
macro_rules! catalog_contract {
    ($world:expr) => {
        $crate::contract_tests!(
            catalog,
            $world,
            an_empty_catalog_is_empty,
            clients_keys_and_applications_are_kept,
            names_are_given_once,
            what_belongs_to_nothing_is_refused,
            a_pipeline_comes_back_whole,
            an_update_raises_the_version,
            of_two_updates_of_one_version_one_fails,
            an_application_with_pipelines_stays,
            numbers_of_pipelines_are_never_given_again,
            a_restart_keeps_the_catalog,
        );
    };
}

pub(super) fn application(client: &str, application: &str) -> Application {
    Application {
        client: name(client),
        name: name(application),
        created_at: at(5),
    }
}

pub(super) fn key(byte: u8, client: &str) -> ApiKey {
    ApiKey {
        hash: ApiKeyHash([byte; 32]),
        client: name(client),
        label: "for tests".into(),
        created_at: at(6),
    }
}

pub(super) fn pipeline(application: &str, pipeline: &str) -> Pipeline {
    Pipeline {
        id: PipelineId(0),
        path: PipelinePath {
            client: name("acme"),
            application: name(application),
            pipeline: name(pipeline),
        },
        version: 0,
        created_at: at(7),
        partitions: 4,
        key_partitions: 3,
        topic: TopicSettings {
            replication: Some(3),
            settings: BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]),
        },
        policy: PipelinePolicy::default(),
        paused: false,
        definition: "{}".into(),
        deployment: None,
        deleting: false,
    }
}

/// A catalog with client `acme`, which has application `docs`.
async fn open(world: &mut dyn StoreWorld) -> Arc<dyn Catalog> {
    let catalog = world.open().await.catalog;
    catalog
        .add_client(Client {
            name: name("acme"),
            created_at: at(4),
        })
        .await
        .expect("a client can be added");
    catalog
        .add_application(application("acme", "docs"))
        .await
        .expect("an application can be added");
    catalog
}

/// A new catalog has nothing.
pub async fn an_empty_catalog_is_empty(world: &mut dyn StoreWorld) {
    let catalog = world.open().await.catalog;
    let snapshot = catalog.snapshot().await.expect("a snapshot");
    assert_eq!(
        snapshot,
        scheduler_core::port::catalog::CatalogSnapshot::default()
    );
}

/// What was added is in the snapshot, and what was removed is not.
pub async fn clients_keys_and_applications_are_kept(world: &mut dyn StoreWorld) {
    let catalog = open(world).await;
    catalog
        .add_application(application("acme", "photos"))
        .await
        .expect("an application can be added");
    catalog.add_key(key(1, "acme")).await.expect("a key can be added");
    catalog.add_key(key(2, "acme")).await.expect("a key can be added");
    catalog
        .remove_key(ApiKeyHash([1; 32]))
        .await
        .expect("a key can be withdrawn");
    catalog
        .remove_application(&name("acme"), &name("docs"))
        .await
        .expect("an empty application can be removed");
    let snapshot = catalog.snapshot().await.expect("a snapshot");
    assert_eq!(
        snapshot.clients,
        [Client {
            name: name("acme"),
            created_at: at(4)
        }]
    );
    assert_eq!(snapshot.keys, [key(2, "acme")]);
    assert_eq!(snapshot.applications, [application("acme", "photos")]);
}

/// A name that is taken is refused; the same name elsewhere is another.
pub async fn names_are_given_once(world: &mut dyn StoreWorld) {
    let catalog = open(world).await;
    let again = catalog
        .add_client(Client {
            name: name("acme"),
            created_at: at(9),
        })
        .await;
    assert!(matches!(again, Err(CatalogError::Exists { kind: "client", .. })));
    let again = catalog.add_application(application("acme", "docs")).await;
    assert!(matches!(
        again,
        Err(CatalogError::Exists {
            kind: "application",
            ..
        })
    ));
    catalog
        .add_pipeline(pipeline("docs", "ocr"))
        .await
        .expect("a pipeline can be added");
    let again = catalog.add_pipeline(pipeline("docs", "ocr")).await;
    assert!(matches!(
        again,
        Err(CatalogError::Exists { kind: "pipeline", .. })
    ));

    catalog
        .add_application(application("acme", "doc"))
        .await
        .expect("a name's beginning is another name");
    catalog
        .add_pipeline(pipeline("doc", "ocr"))
        .await
        .expect("the name is free in another application");
}

/// There are no keys and applications without a client, and no pipelines without an application.
pub async fn what_belongs_to_nothing_is_refused(world: &mut dyn StoreWorld) {
    let catalog = open(world).await;
    let not_found = |result: Result<(), CatalogError>, of: &str| matches!(result, Err(CatalogError::NotFound { kind, .. }) if kind == of);
    assert!(not_found(catalog.add_key(key(1, "nobody")).await, "client"));
    assert!(not_found(
        catalog.add_application(application("nobody", "docs")).await,
        "client"
    ));
    assert!(not_found(
        catalog.add_pipeline(pipeline("nothing", "ocr")).await.map(drop),
        "application"
    ));
    assert!(not_found(catalog.remove_key(ApiKeyHash([9; 32])).await, "key"));
    assert!(not_found(
        catalog.remove_application(&name("acme"), &name("nothing")).await,
        "application"
    ));
    assert!(not_found(
        catalog.update_pipeline(pipeline("docs", "ocr")).await.map(drop),
        "pipeline"
    ));
    assert!(not_found(
        catalog.remove_pipeline(PipelineId(77)).await,
        "pipeline"
    ));
}

/// Every field of a pipeline is kept.
pub async fn a_pipeline_comes_back_whole(world: &mut dyn StoreWorld) {
    let catalog = open(world).await;
    let policy = PipelinePolicy {
        retry: RetryPolicy {
            max_attempts: 9,
            factor: 1.5,
            jitter: 0.125,
            seed: u64::MAX,
            ..RetryPolicy::default()
        },
        timeouts: Timeouts {
            start: Some(Duration::from_millis(1)),
            total: Some(Duration::ZERO),
            ..Timeouts::default()
        },
        ..PipelinePolicy::default()
    };
    let deployment = Deployment {
        chart: "examples/charts/ocr".into(),
        values: "{\"a\":1}".into(),
        replicas: Replicas { min: 0, max: 7 },
    };
    let given = Pipeline {
        policy,
        paused: true,
        deployment: Some(deployment),
        ..pipeline("docs", "ocr")
    };
    let added = catalog
        .add_pipeline(given.clone())
        .await
        .expect("a pipeline can be added");
    assert_eq!(added.version, 1);
    assert_eq!(
        added,
        Pipeline {
            id: added.id,
            version: 1,
            ..given
        }
    );
    let snapshot = catalog.snapshot().await.expect("a snapshot");
    assert_eq!(snapshot.pipelines, [Arc::new(added)]);
}

/// An update replaces the pipeline and counts.
pub async fn an_update_raises_the_version(world: &mut dyn StoreWorld) {
    let catalog = open(world).await;
    let mut current = catalog
        .add_pipeline(pipeline("docs", "ocr"))
        .await
        .expect("a pipeline can be added");
    for version in 2..5 {
        let changed = Pipeline {
            partitions: version,
            paused: version % 2 == 0,
            ..current
        };
        current = catalog
            .update_pipeline(changed.clone())
            .await
            .expect("an update succeeds");
        assert_eq!(
            current,
            Pipeline {
                version: version.into(),
                ..changed
            }
        );
    }
    assert_eq!(
        catalog.snapshot().await.expect("a snapshot").pipelines,
        [Arc::new(current)]
    );
}

/// Of two updates that began with the same version, the second is told.
pub async fn of_two_updates_of_one_version_one_fails(world: &mut dyn StoreWorld) {
    let catalog = open(world).await;
    let read = catalog
        .add_pipeline(pipeline("docs", "ocr"))
        .await
        .expect("a pipeline can be added");
    let first = Pipeline {
        partitions: 8,
        ..read.clone()
    };
    let first = catalog.update_pipeline(first).await.expect("an update succeeds");
    let second = catalog
        .update_pipeline(Pipeline {
            partitions: 16,
            ..read
        })
        .await;
    assert!(matches!(second, Err(CatalogError::Changed(path)) if path == first.path));
    assert_eq!(
        catalog.snapshot().await.expect("a snapshot").pipelines,
        [Arc::new(first)]
    );
}

/// An application is removed only when it is empty.
pub async fn an_application_with_pipelines_stays(world: &mut dyn StoreWorld) {
    let catalog = open(world).await;
    let added = catalog
        .add_pipeline(pipeline("docs", "ocr"))
        .await
        .expect("a pipeline can be added");
    let refused = catalog.remove_application(&name("acme"), &name("docs")).await;
    assert!(matches!(refused, Err(CatalogError::NotEmpty(of)) if of == name("docs")));
    catalog
        .remove_pipeline(added.id)
        .await
        .expect("a pipeline can be removed");
    catalog
        .remove_application(&name("acme"), &name("docs"))
        .await
        .expect("an empty application can be removed");
}

/// A number names one pipeline for ever, also after a removal and a restart.
pub async fn numbers_of_pipelines_are_never_given_again(world: &mut dyn StoreWorld) {
    let catalog = open(world).await;
    let mut last = PipelineId(0);
    for _ in 0..3 {
        let added = catalog
            .add_pipeline(pipeline("docs", "ocr"))
            .await
            .expect("a pipeline can be added");
        assert!(added.id > last);
        last = added.id;
        catalog
            .remove_pipeline(added.id)
            .await
            .expect("a pipeline can be removed");
    }
    drop(catalog);
    let catalog = world.open().await.catalog;
    let added = catalog
        .add_pipeline(pipeline("docs", "ocr"))
        .await
        .expect("a pipeline can be added");
    assert!(added.id > last);
}

/// Everything is there after a restart.
pub async fn a_restart_keeps_the_catalog(world: &mut dyn StoreWorld) {
    let catalog = open(world).await;
    catalog.add_key(key(1, "acme")).await.expect("a key can be added");
    catalog
        .add_pipeline(pipeline("docs", "ocr"))
        .await
        .expect("a pipeline can be added");
    let before = catalog.snapshot().await.expect("a snapshot");
    drop(catalog);
    let catalog = world.open().await.catalog;
    assert_eq!(catalog.snapshot().await.expect("a snapshot"), before);
}
