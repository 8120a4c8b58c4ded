//! Servers that deploy charts into a cluster, as processes: the real helm, a real API server, and nothing that acts on the objects there.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "helm/gate.rs"]
mod gate;
#[path = "helm/installed.rs"]
#[expect(dead_code, reason = "this is for tests with nodes as well")]
mod installed;
#[path = "helm/world.rs"]
#[expect(dead_code, reason = "this is for tests with nodes as well")]
mod world;

use gate::Gate;
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

/// What becomes of a pipeline of the application at hand.
#[derive(Clone, Copy)]
enum Goal {
    Deployed(&'static str),
    Gone,
}

impl World {
    async fn reached(&self, goal: Goal) -> Result<(), String> {
        match goal {
            Goal::Deployed(image) => {
                let (found, statuses) = (self.image().await, self.statuses().await);
                if found.as_deref() == Some(image) && statuses.last().is_some_and(|last| last == "deployed") {
                    return Ok(());
                }
                Err(format!(
                    "the image is {found:?} instead of {image}, revisions are {statuses:?}: {}",
                    self.log()
                ))
            }
            Goal::Gone => {
                let answer = self.api().get(&format!("{}/ocr", self.pipelines())).await;
                let answer = answer.map_err(|error| error.to_string())?;
                if answer.status != 404
                    || self.namespace().await.is_some()
                    || !self.deployments().await.is_empty()
                {
                    return Err(format!("it is still there: {}: {}", answer.body, self.log()));
                }
                Ok(())
            }
        }
    }
}

/// Kills the server as soon as the gate holds a change and starts it again; or lets it be, if it reaches its goal without one. How often it was killed.
async fn killed(gate: &Gate, world: &mut World, goal: Goal) -> u32 {
    let is_held = tokio::select! {
        () = gate.held() => true,
        () = eventually(async || world.reached(goal).await) => false,
    };
    if is_held {
        world.kill().await;
        world.restart().await;
    }
    gate.open();
    is_held.into()
}

/// Every state that the cluster has between two changes which the server, or helm, makes: in each of them the server is killed.
#[tokio::test]
async fn a_server_that_is_killed_between_any_two_steps_finishes_when_it_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    let gate = Gate::before(World::admin().await, &kubeconfig, &[]).await;
    let arguments = [
        ("--worker-url", "http://scheduler:50050"),
        ("--kubeconfig", kubeconfig.to_str().unwrap()),
    ];
    let mut world = World::start_as("", &arguments).await;
    let chart = world.chart("ocr", &[("templates/worker.yaml", WORKER)]);
    let mut kills = [0; 3];
    for steps in 0.. {
        let before = kills;
        world.turn_to(&format!("app{steps}"));
        let pipeline = format!("{}/ocr", world.pipelines());

        gate.hold_after(steps);
        let (api, all) = (world.api(), world.pipelines());
        let new = json!({"name": "ocr", "chart": chart, "values": {"image": "worker:1"}});
        let creating = tokio::spawn(async move { api.post(&all, &new).await });
        kills[0] += killed(&gate, &mut world, Goal::Deployed("worker:1")).await;
        let created = creating.await.unwrap();
        // One that nobody was told of need not be there, and then is not there at all.
        if created.is_err() && world.api().get(&pipeline).await.unwrap().status == 404 {
            assert!(
                world.namespace().await.is_none(),
                "it is left after {steps} steps"
            );
            continue;
        }
        eventually(async || world.reached(Goal::Deployed("worker:1")).await).await;

        gate.hold_after(steps);
        let change = json!({"values": {"image": "worker:2"}});
        let changed = world.patch(&pipeline, &change).await.unwrap();
        assert_eq!(changed.status, 200, "{}", changed.body);
        kills[1] += killed(&gate, &mut world, Goal::Deployed("worker:2")).await;
        eventually(async || world.reached(Goal::Deployed("worker:2")).await).await;

        gate.hold_after(steps);
        let (api, path) = (world.api(), pipeline.clone());
        let deleting = tokio::spawn(async move { api.delete(&path).await });
        kills[2] += killed(&gate, &mut world, Goal::Gone).await;
        // The answer may have been lost with the server; that it began was not.
        drop(deleting.await);
        eventually(async || world.reached(Goal::Gone).await).await;

        if kills == before {
            println!("killed while it created, changed and deleted: {kills:?}");
            break;
        }
    }
    assert!(kills.iter().all(|kills| *kills > 2), "{kills:?}");
    world.stop().await;
}
