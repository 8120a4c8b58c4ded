//! Servers that deploy charts into a cluster, as processes: the real helm, a real API server, and nothing that acts on the objects there.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "helm/installed.rs"]
#[expect(dead_code, reason = "this is for tests with nodes as well")]
mod installed;
#[path = "helm/world.rs"]
#[expect(dead_code, reason = "this is for tests with nodes as well")]
mod world;

use installed::Installed;
use serde_json::json;
use world::{PIPELINES, WORKER, World, eventually};

#[tokio::test]
async fn a_server_with_the_account_of_its_chart_deploys_and_may_do_nothing_else() {
    let installed = Installed::new(&["deployer=helm"]);
    let account = installed.account().await;
    let kubeconfig = account.kubeconfig().display().to_string();
    let arguments = [
        ("--kubeconfig", kubeconfig.as_str()),
        ("--worker-url", "http://scheduler:50050"),
        ("--api-key", "default=0123456789abcdef"),
    ];
    let mut world = World::start_as("", &arguments).await.with_key("0123456789abcdef");
    let chart = world.chart("ocr", &[("templates/worker.yaml", WORKER)]);
    let new = json!({"name": "ocr", "chart": chart, "replicas": {"min": 1, "max": 3}, "values": {"image": "worker:1"}});
    let created = world.api().post(PIPELINES, &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    world.until_image("worker:1").await;
    world.until_replicas(1).await;
    let more = json!({"replicas": {"min": 2, "max": 3}});
    let scaled = world.patch(&World::pipeline("ocr"), &more).await.unwrap();
    assert_eq!(scaled.status, 200, "{}", scaled.body);
    world.until_replicas(2).await;
    let deleted = world.api().delete(&World::pipeline("ocr")).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    assert!(world.namespace().await.is_none());

    for (group, resource, verb) in [
        ("", "secrets", "list"),
        ("", "secrets", "delete"),
        ("", "pods", "create"),
        ("", "pods", "patch"),
        ("", "nodes", "get"),
        ("", "users", "impersonate"),
        ("apps", "deployments", "create"),
        ("rbac.authorization.k8s.io", "clusterroles", "bind"),
        ("rbac.authorization.k8s.io", "clusterrolebindings", "create"),
    ] {
        assert!(!account.may(group, resource, verb).await, "{verb} {resource}");
    }
    assert!(account.may("", "serviceaccounts", "impersonate").await);
    world.stop().await;
    installed.remove();
}

#[tokio::test]
async fn a_chart_is_planned_deployed_scaled_changed_and_removed_over_http() {
    let mut world = World::start().await;
    // It makes what depends on how many workers there are to be.
    let bounds = "{{ with .Values.global.scheduler.replicas }}{{ .min }}-to-{{ .max }}{{ end }}";
    let map = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {bounds}}}\n");
    let files = [
        ("templates/worker.yaml", WORKER),
        ("templates/map.yaml", &map),
        ("values.yaml", "replicas: {min: 0, max: 5}\n"),
    ];
    let chart = world.chart("ocr", &files);
    let new = json!({"name": "ocr", "chart": chart, "replicas": {"min": 1, "max": 3}, "values": {"image": "worker:1"},
        "pipeline": [{"executor": "shell", "commands": ["true"]}]});
    let planned = world
        .api()
        .post(&format!("{PIPELINES}?dry_run=true"), &new)
        .await
        .unwrap();
    assert_eq!(planned.status, 200, "{}", planned.body);
    assert_eq!(
        planned.body["objects"],
        json!(["ConfigMap/1-to-3", "Deployment/ocr"])
    );
    assert_eq!(planned.body["replicas"], json!({"min": 1, "max": 3}));
    // What the request does not say is the chart's.
    let plan = async |replicas: &serde_json::Value| {
        let mut new = new.clone();
        new["replicas"] = replicas.clone();
        let path = format!("{PIPELINES}?dry_run=true");
        let planned = world.api().post(&path, &new).await.unwrap().body;
        (planned["objects"][0].clone(), planned["replicas"].clone())
    };
    for (asked, name, bounds) in [
        (json!({"min": 2}), "ConfigMap/2-to-5", json!({"min": 2, "max": 5})),
        (json!({"max": 9}), "ConfigMap/0-to-9", json!({"min": 0, "max": 9})),
        (json!(null), "ConfigMap/0-to-5", json!({"min": 0, "max": 5})),
    ] {
        assert_eq!(plan(&asked).await, (json!(name), bounds), "{asked}");
    }
    assert_eq!(
        planned.body["definition"]["pipeline"][0]["executor"], "shell",
        "{}",
        planned.body
    );
    assert_eq!(
        world.api().get(&World::pipeline("ocr")).await.unwrap().status,
        404
    );
    assert!(world.namespace().await.is_none());

    let created = world.api().post(PIPELINES, &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    world.until_image("worker:1").await;
    world.until_replicas(1).await;
    let scaled = world
        .api()
        .post(
            &format!("{}/scale", World::pipeline("ocr")),
            &json!({"workers": 2}),
        )
        .await
        .unwrap();
    assert_eq!(scaled.status, 200, "{}", scaled.body);
    world.until_replicas(2).await;
    let changed = world
        .patch(&World::pipeline("ocr"), &json!({"values": {"image": "worker:2"}}))
        .await
        .unwrap();
    assert_eq!(changed.status, 200, "{}", changed.body);
    world.until_image("worker:2").await;
    world.until_replicas(2).await;

    let deleted = world.api().delete(&World::pipeline("ocr")).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    assert!(world.deployments().await.is_empty());
    assert!(world.namespace().await.is_none());
    world.stop().await;
}

#[tokio::test]
async fn a_hostile_chart_is_a_problem_that_names_the_object_and_the_rule_and_nothing_is_left() {
    let mut world = World::start().await;
    let evil = "apiVersion: v1\nkind: Pod\nmetadata: {name: evil}\nspec: {hostNetwork: true, containers: [{name: c, image: i}]}\n";
    let chart = world.chart("evil", &[("templates/evil.yaml", evil)]);
    let new = json!({"name": "evil", "chart": chart});
    let refused = world.api().post(PIPELINES, &new).await.unwrap();
    assert_eq!(refused.status, 400, "{}", refused.body);
    let text = refused.body.to_string();
    assert!(text.contains("Pod/evil breaks host-network"), "{text}");
    assert!(text.contains("Pod/evil breaks kind"), "{text}");
    for chart in [
        "https://example.com/a.tgz",
        "https://169.254.169.254/a.tgz",
        "/etc",
    ] {
        let refused = world
            .api()
            .post(PIPELINES, &json!({"name": "evil", "chart": chart}))
            .await
            .unwrap();
        assert_eq!(refused.status, 400, "{chart}: {}", refused.body);
    }
    assert_eq!(
        world.api().get(&World::pipeline("evil")).await.unwrap().status,
        404
    );
    assert!(world.namespace().await.is_none());
    world.stop().await;
}

#[tokio::test]
async fn a_server_that_is_killed_while_it_deploys_finishes_when_it_comes_back() {
    let mut world = World::start().await;
    let chart = world.chart("ocr", &[("templates/worker.yaml", WORKER)]);
    let new = json!({"name": "ocr", "chart": chart, "values": {"image": "worker:0"}});
    let created = world.api().post(PIPELINES, &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    world.kill().await;
    world.restart().await;
    world.until_image("worker:0").await;
    // Later and later into a deployment, over all its steps.
    for round in 1..=8_u64 {
        let image = format!("worker:{round}");
        let changed = world
            .patch(&World::pipeline("ocr"), &json!({"values": {"image": image}}))
            .await
            .unwrap();
        assert_eq!(changed.status, 200, "{}", changed.body);
        tokio::time::sleep(std::time::Duration::from_millis(round * 40)).await;
        world.kill().await;
        world.restart().await;
        world.until_image(&image).await;
        eventually(async || {
            let statuses = world.statuses().await;
            match statuses.last() {
                Some(last) if last == "deployed" => Ok(()),
                _ => Err(format!("round {round}: {statuses:?}")),
            }
        })
        .await;
    }
    let deleted = world.api().delete(&World::pipeline("ocr")).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    assert!(world.deployments().await.is_empty());
    world.stop().await;
}
