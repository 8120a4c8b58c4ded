//! From a wish to objects in the cluster, and back to nothing.

use bytes::Bytes;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams, PostParams};
use scheduler_core::port::catalog::Replicas;
use scheduler_core::port::deploy::{DeployError, Deployer as _, RolloutPhase, Wanted};
use scheduler_deploy::helm::{HelmConfig, HelmDeployer};
use serde_json::json;

use crate::charts::{FILES, WORKER};
use crate::world::{World, eventually, until, until_deployed};

#[tokio::test]
async fn a_chart_becomes_objects_in_the_namespace_of_its_application_and_goes_with_its_pipeline() {
    let mut world = World::new().await;
    world.config.api_keys = [("acme".parse().unwrap(), "acme-secret".to_owned())].into();
    let deployer = world.deployer().await;
    let wanted = world.wanted("ocr", &world.chart("ocr", &FILES));
    let facts = deployer
        .inspect(&wanted.path, &wanted.deployment.clone().into())
        .await
        .unwrap();
    assert_eq!(facts.objects, ["ConfigMap/ocr-pipeline", "Deployment/ocr"]);
    assert_eq!(facts.replicas, Some(Replicas { min: 2, max: 2 }));
    let definition = String::from_utf8(facts.definition.unwrap().to_vec()).unwrap();
    assert!(
        definition.contains("worker-1") && definition.contains("{{text}}"),
        "{definition}"
    );
    assert_eq!(
        world.namespaces().await,
        Vec::<String>::new(),
        "inspecting leaves nothing"
    );

    deployer.apply(wanted.clone()).await.unwrap();
    until_deployed(&deployer, wanted.pipeline).await;
    let worker = world.object("apps/v1", "Deployment", "ocr").await;
    assert_eq!(worker.data["spec"]["replicas"], 1, "the least of its bounds");
    let agent = &worker.data["spec"]["template"]["spec"]["containers"][0]["env"];
    let told = json!([
        {"name": "PIPELINE_AGENT__NAME", "value": "ocr"},
        {"name": "SCHEDULER_URL", "value": "http://scheduler:50050"},
        {"name": "SCHEDULER_APPLICATION", "value": "app"},
        {"name": "SCHEDULER_PIPELINE", "value": "ocr"},
        {"name": "SCHEDULER_API_KEY", "valueFrom": {"secretKeyRef": {"name": "workload-scheduler-api-key", "key": "api-key"}}},
    ]);
    assert_eq!(*agent, told);
    let map = world.object("v1", "ConfigMap", "ocr-pipeline").await;
    assert!(
        map.data["data"]["pipeline.yaml"]
            .as_str()
            .unwrap()
            .contains("echo {{text}}")
    );

    // What an application has before any chart.
    let namespace = world.live_namespace().await.unwrap();
    assert_eq!(
        namespace.labels()["pod-security.kubernetes.io/enforce"],
        "baseline"
    );
    for (version, kind, name) in [
        ("v1", "ResourceQuota", "workload-scheduler"),
        ("v1", "LimitRange", "workload-scheduler"),
        ("networking.k8s.io/v1", "NetworkPolicy", "workload-scheduler"),
        ("v1", "ServiceAccount", "workload-scheduler-deployer"),
        (
            "rbac.authorization.k8s.io/v1",
            "Role",
            "workload-scheduler-deployer",
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            "workload-scheduler-deployer",
        ),
    ] {
        world.object(version, kind, name).await;
    }

    deployer.scale(wanted.pipeline, 3).await.unwrap();
    let worker = world.object("apps/v1", "Deployment", "ocr").await;
    assert_eq!(worker.data["spec"]["replicas"], 3);
    deployer.scale(wanted.pipeline, 99).await.unwrap();
    let worker = world.object("apps/v1", "Deployment", "ocr").await;
    assert_eq!(worker.data["spec"]["replicas"], 4, "the most of its bounds");

    deployer.remove(wanted.pipeline, &wanted.path).await.unwrap();
    deployer.remove(wanted.pipeline, &wanted.path).await.unwrap();
    assert_eq!(deployer.rollout(wanted.pipeline).await.unwrap(), None);
    assert!(world.names("apps/v1", "Deployment").await.is_empty());
    assert!(
        world.live_namespace().await.is_none(),
        "it was the last pipeline of the application"
    );
    assert!(world.copies().is_empty());
}

#[tokio::test]
async fn an_upgrade_keeps_the_number_of_workers_and_a_repetition_changes_nothing() {
    let world = World::new().await;
    let deployer = world.deployer().await;
    let wanted = world.wanted("ocr", &world.chart("ocr", &FILES));
    deployer.apply(wanted.clone()).await.unwrap();
    until_deployed(&deployer, wanted.pipeline).await;
    deployer.scale(wanted.pipeline, 2).await.unwrap();
    let generation = world
        .object("apps/v1", "Deployment", "ocr")
        .await
        .metadata
        .generation;
    deployer.apply(wanted.clone()).await.unwrap();

    let mut next = Wanted {
        version: 2,
        ..wanted.clone()
    };
    next.deployment.values = Bytes::from(r#"{"image": "worker:2"}"#);
    deployer.apply(next.clone()).await.unwrap();
    // An older wish comes too late.
    deployer.apply(wanted.clone()).await.unwrap();
    until_image(&world, &deployer, &next, "worker:2").await;
    let worker = world.object("apps/v1", "Deployment", "ocr").await;
    assert_eq!(worker.data["spec"]["replicas"], 2);
    assert_eq!(
        worker.metadata.generation.unwrap(),
        generation.unwrap() + 1,
        "one change, one generation"
    );
    deployer.remove(wanted.pipeline, &wanted.path).await.unwrap();
}

pub(crate) async fn until_image(world: &World, deployer: &HelmDeployer, wanted: &Wanted, image: &str) {
    eventually(async || {
        let rollout = deployer.rollout(wanted.pipeline).await.unwrap().unwrap();
        assert_ne!(rollout.phase, RolloutPhase::Failed, "{}", rollout.problem);
        let is_there = rollout.wanted > 0 && has_image(world, image).await;
        if is_there {
            Ok(())
        } else {
            Err(format!("{image} does not come: {rollout:?}"))
        }
    })
    .await;
}

pub(crate) async fn has_image(world: &World, image: &str) -> bool {
    let deployments = world.objects("apps/v1", "Deployment").await;
    let image_of = |one: &kube::core::DynamicObject| {
        one.data["spec"]["template"]["spec"]["containers"][0]["image"] == image
    };
    deployments.iter().any(image_of)
}

#[tokio::test]
async fn a_restarted_server_adopts_what_is_deployed_without_its_chart() {
    let world = World::new().await;
    let chart = world.chart("ocr", &FILES);
    let wanted = world.wanted("ocr", &chart);
    let first = world.deployer().await;
    first.apply(wanted.clone()).await.unwrap();
    until_deployed(&first, wanted.pipeline).await;
    first.scale(wanted.pipeline, 3).await.unwrap();
    first.shutdown().await;
    drop(first);
    std::fs::remove_dir_all(chart).unwrap();

    let second = world.deployer().await;
    second.apply(wanted.clone()).await.unwrap();
    until_deployed(&second, wanted.pipeline).await;
    let worker = world.object("apps/v1", "Deployment", "ocr").await;
    assert_eq!(worker.data["spec"]["replicas"], 3, "as many as there were");
    drop(second);

    // Nor must a pipeline have been applied to be removed.
    let third = world.deployer().await;
    third.remove(wanted.pipeline, &wanted.path).await.unwrap();
    assert!(world.names("apps/v1", "Deployment").await.is_empty());
    assert!(world.live_namespace().await.is_none());
}

#[tokio::test]
async fn a_release_that_was_interrupted_is_taken_back_and_deployed() {
    for (status, images) in [
        ("pending-install", 1),
        ("pending-upgrade", 2),
        ("pending-rollback", 2),
        ("uninstalling", 1),
    ] {
        let world = World::new().await;
        let mut wanted = world.wanted("ocr", &world.chart("ocr", &FILES));
        let deployer = world.deployer().await;
        for image in 1..=images {
            wanted.version = image;
            wanted.deployment.values = Bytes::from(format!(r#"{{"image": "worker:{image}"}}"#));
            deployer.apply(wanted.clone()).await.unwrap();
            until_image(&world, &deployer, &wanted, &format!("worker:{image}")).await;
        }
        deployer.shutdown().await;
        drop(deployer);
        interrupt(&world, status).await;

        let deployer = world.deployer().await;
        deployer.apply(wanted.clone()).await.unwrap();
        // The newest revision is in no state of passage any more.
        let image = format!("worker:{images}");
        eventually(async || {
            let statuses = statuses(&world).await;
            let is_over = statuses.last().is_some_and(|last| last == "deployed");
            let rollout = deployer.rollout(wanted.pipeline).await.unwrap();
            let problem = format!("{status}: revisions are {statuses:?}, {rollout:?}");
            if is_over && has_image(&world, &image).await {
                Ok(())
            } else {
                Err(problem)
            }
        })
        .await;
        deployer.remove(wanted.pipeline, &wanted.path).await.unwrap();
    }
}

/// What helm keeps when it is killed in the middle: its newest revision, in a state of passage.
async fn interrupt(world: &World, status: &str) {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use std::io::{Read as _, Write as _};
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), &world.namespace());
    let newest = releases(world).await.pop().unwrap();
    // A release is JSON, zipped, in base64, and again in base64 as every secret.
    let kept = newest.data.as_ref().unwrap()["release"].0.clone();
    let zipped = STANDARD.decode(kept).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(zipped.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    let mut release: serde_json::Value = serde_json::from_str(&text).unwrap();
    release["info"]["status"] = status.into();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(release.to_string().as_bytes()).unwrap();
    let kept = STANDARD.encode(encoder.finish().unwrap());
    let patch =
        json!({"metadata": {"labels": {"status": status}}, "data": {"release": STANDARD.encode(kept)}});
    let name = newest.name_any();
    secrets
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    // The one before is what was deployed, as it is while helm works on the next.
    let mut older = releases(world).await;
    older.pop();
    if let Some(older) = older.pop() {
        let patch = json!({"metadata": {"labels": {"status": "deployed"}}});
        secrets
            .patch(&older.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }
}

pub(crate) async fn releases(world: &World) -> Vec<Secret> {
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), &world.namespace());
    let of_helm = kube::api::ListParams::default().labels("owner=helm");
    let mut found = secrets.list(&of_helm).await.unwrap().items;
    found.sort_by_key(|secret| secret.labels()["version"].parse::<u32>().unwrap());
    found
}

pub(crate) async fn statuses(world: &World) -> Vec<String> {
    let releases = releases(world).await;
    releases
        .iter()
        .map(|secret| secret.labels()["status"].clone())
        .collect()
}

#[tokio::test]
async fn a_chart_that_the_cluster_refuses_leaves_what_was_before() {
    let world = World::new().await;
    let deployer = world.deployer().await;
    let bad = WORKER.replace(
        "app: {{ .Release.Name }}",
        "app: {{ .Values.label | default .Release.Name | quote }}",
    );
    let chart = world.chart(
        "ocr",
        &[
            ("values.yaml", crate::charts::VALUES),
            ("templates/worker.yaml", &bad),
        ],
    );
    let mut wanted = world.wanted("ocr", &chart);
    wanted.deployment.values = Bytes::from(r#"{"label": "no label!"}"#);
    deployer.apply(wanted.clone()).await.unwrap();
    let failed = until(&deployer, wanted.pipeline, "the refusal", |rollout| {
        rollout.phase == RolloutPhase::Failed
    })
    .await;
    assert!(
        failed.problem.contains("the cluster does not take it"),
        "{}",
        failed.problem
    );
    assert!(failed.problem.contains("no label!"), "{}", failed.problem);
    assert!(world.names("apps/v1", "Deployment").await.is_empty());
    assert!(releases(&world).await.is_empty());

    wanted.version = 2;
    wanted.deployment.values = Bytes::new();
    deployer.apply(wanted.clone()).await.unwrap();
    until_deployed(&deployer, wanted.pipeline).await;
    wanted.version = 3;
    wanted.deployment.values = Bytes::from(r#"{"label": "other", "image": "worker:3"}"#);
    deployer.apply(wanted.clone()).await.unwrap();
    // A selector cannot be changed.
    let failed = until(&deployer, wanted.pipeline, "the refusal", |rollout| {
        rollout.phase == RolloutPhase::Failed
    })
    .await;
    assert!(failed.problem.contains("immutable"), "{}", failed.problem);
    let worker = world.object("apps/v1", "Deployment", "ocr").await;
    assert_eq!(
        worker.data["spec"]["template"]["spec"]["containers"][0]["image"],
        "worker:1"
    );
    assert_eq!(statuses(&world).await.last().unwrap(), "deployed");
    deployer.remove(wanted.pipeline, &wanted.path).await.unwrap();
}

#[tokio::test]
async fn applications_do_not_reach_each_other_and_a_namespace_of_others_is_not_taken() {
    let world = World::new().await;
    let deployer = world.deployer().await;
    let chart = world.chart("ocr", &FILES);
    let one = world.wanted("ocr", &chart);
    let mut other = world.wanted("ocr", &chart);
    other.path.application = "other".parse().unwrap();
    deployer.apply(one.clone()).await.unwrap();
    deployer.apply(other.clone()).await.unwrap();
    until_deployed(&deployer, one.pipeline).await;
    until_deployed(&deployer, other.pipeline).await;
    let namespaces = world.namespaces().await;
    assert_eq!(namespaces.len(), 2, "{namespaces:?}");

    // The account that charts of one are applied as sees nothing of the other, and nothing of the cluster.
    let account = format!(
        "system:serviceaccount:{}:workload-scheduler-deployer",
        world.namespace()
    );
    let elsewhere = namespaces
        .iter()
        .find(|name| **name != world.namespace())
        .unwrap();
    for (namespace, group, resource, allowed) in [
        (world.namespace().as_str(), "apps", "deployments", true),
        (
            world.namespace().as_str(),
            "rbac.authorization.k8s.io",
            "roles",
            false,
        ),
        (world.namespace().as_str(), "", "pods/exec", false),
        (elsewhere.as_str(), "apps", "deployments", false),
        (elsewhere.as_str(), "", "secrets", false),
        ("kube-system", "", "secrets", false),
        ("", "", "namespaces", false),
    ] {
        assert_eq!(
            may(&world, &account, namespace, group, resource).await,
            allowed,
            "{namespace} {resource}"
        );
    }

    let mut third = world.wanted("ocr", &chart);
    third.path.application = "third".parse().unwrap();
    let taken = world.namespace().replace("acme-app", "acme-third");
    let namespace = serde_json::from_value(json!({"metadata": {"name": taken}})).unwrap();
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(world.client.clone());
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    deployer.apply(third.clone()).await.unwrap();
    let failed = until(&deployer, third.pipeline, "the refusal", |rollout| {
        rollout.phase == RolloutPhase::Failed
    })
    .await;
    assert!(
        failed.problem.contains("is not this application's"),
        "{}",
        failed.problem
    );
    for wanted in [&one, &other, &third] {
        deployer.remove(wanted.pipeline, &wanted.path).await.unwrap();
    }
}

async fn may(world: &World, user: &str, namespace: &str, group: &str, resource: &str) -> bool {
    use k8s_openapi::api::authorization::v1::SubjectAccessReview;
    let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
    let review = serde_json::from_value(json!({"metadata": {}, "spec": {"user": user,
        "groups": ["system:serviceaccounts", "system:authenticated"],
        "resourceAttributes": {"namespace": namespace, "group": group, "resource": resource, "subresource": sub, "verb": "create"}}}));
    let reviews: Api<SubjectAccessReview> = Api::all(world.client.clone());
    let review = reviews
        .create(&PostParams::default(), &review.unwrap())
        .await
        .unwrap();
    review.status.unwrap().allowed
}

#[tokio::test]
async fn helm_that_is_not_there_or_too_old_is_told_at_the_start() {
    let world = World::new().await;
    let opened = |program: &str| {
        let config = HelmConfig {
            program: program.into(),
            ..world.config.clone()
        };
        HelmDeployer::open(config)
    };
    let cause = |error: DeployError| std::error::Error::source(&error).unwrap().to_string();
    let problem = cause(opened("/nowhere/helm").await.unwrap_err());
    assert!(
        problem.contains("/nowhere/helm cannot be used") && problem.contains("--helm"),
        "{problem}"
    );
    let old = world.directory.path().join("old-helm");
    std::fs::write(&old, "#!/bin/sh\necho v3.2.1\n").unwrap();
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let problem = cause(opened(old.to_str().unwrap()).await.unwrap_err());
    assert!(
        problem.contains("it is v3.2.1") && problem.contains("3.14 or newer"),
        "{problem}"
    );
}
