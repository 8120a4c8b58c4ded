//! A chart that was made for another scheduler, before this one: `existing/`.

use bytes::Bytes;
use scheduler_core::port::deploy::{DeployError, Deployer as _, Wanted};
use serde_json::{Value, json};

use crate::world::{World, eventually, until_deployed};

const FILES: [(&str, &str); 5] = [
    ("values.yaml", include_str!("existing/values.yaml")),
    (
        "templates/deployment.yaml",
        include_str!("existing/templates/deployment.yaml"),
    ),
    (
        "templates/quota.yaml",
        include_str!("existing/templates/quota.yaml"),
    ),
    (
        "templates/scaledobject.yaml",
        include_str!("existing/templates/scaledobject.yaml"),
    ),
    (
        "templates/service.yaml",
        include_str!("existing/templates/service.yaml"),
    ),
];

fn with_values(wanted: &Wanted, values: &Value) -> Wanted {
    let mut wanted = wanted.clone();
    wanted.deployment.values = Bytes::from(values.to_string());
    wanted
}

#[tokio::test]
async fn a_chart_of_the_existing_kind_is_deployed_with_its_quota_left_to_the_application() {
    let world = World::new().await;
    let deployer = world.deployer().await;
    let wanted = world.wanted("pictures", &world.chart("ocr", &FILES));
    let inspect = async |values: Value| {
        let wanted = with_values(&wanted, &values);
        deployer.inspect(&wanted.path, &wanted.deployment.into()).await
    };
    for (values, rule) in [
        (json!({}), "ResourceQuota/ocr breaks kind"),
        (
            json!({"resourceQuota": {"enabled": false}, "autoScaling": {"enabled": true}}),
            "ScaledObject/ocr",
        ),
    ] {
        let refused = inspect(values).await.unwrap_err();
        let DeployError::Invalid { field, problem } = refused else {
            panic!("{refused}")
        };
        assert_eq!(field, "chart");
        assert!(problem.contains(rule), "{problem}");
    }
    let alone = json!({
        "resourceQuota": {"enabled": false},
        "executor_mc": {"enabled": true},
        "pipeline_agent": {"image": "agent:2"},
    });
    let facts = inspect(alone.clone()).await.unwrap();
    assert_eq!(facts.objects, ["Service/ocr", "Deployment/ocr"]);
    assert_eq!(facts.definition, None, "it comes with the request");

    let wanted = with_values(&wanted, &alone);
    deployer.apply(wanted.clone()).await.unwrap();
    until_deployed(&deployer, wanted.pipeline).await;
    let deployment = world.object("apps/v1", "Deployment", "ocr").await;
    let pod = &deployment.data["spec"]["template"]["spec"];
    let containers = pod["containers"].as_array().unwrap();
    let names: Vec<&str> = containers
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "executor-wget",
            "executor-tesseract",
            "executor-mc",
            "pipeline-agent"
        ]
    );
    let agent = &containers[3];
    assert_eq!(agent["image"], "agent:2");
    let environment = agent["env"].as_array().unwrap();
    for told in [
        json!({"name": "PIPELINE_AGENT__EXECUTORS__1__TARGET", "value": "127.0.0.1:50052"}),
        // Of the scheduler it knows nothing; whose it is it is told.
        json!({"name": "SCHEDULER_URL", "value": "http://scheduler:50050"}),
        json!({"name": "SCHEDULER_PIPELINE", "value": "pictures"}),
    ] {
        assert!(environment.contains(&told), "{told} is not in {environment:?}");
    }
    assert_eq!(deployment.data["spec"]["replicas"], 1);
    deployer.scale(wanted.pipeline, 3).await.unwrap();
    let deployment = world.object("apps/v1", "Deployment", "ocr").await;
    assert_eq!(deployment.data["spec"]["replicas"], 3);

    // The next version of the chart, from another place.
    let newer = FILES.map(|(name, text)| (name, text.replace("executor-wget:1", "executor-wget:2")));
    let newer = newer.each_ref().map(|(name, text)| (*name, text.as_str()));
    let mut next = Wanted {
        version: 2,
        ..wanted.clone()
    };
    next.deployment.chart = world.chart("newer/ocr", &newer);
    deployer.apply(next).await.unwrap();
    eventually(async || {
        let deployment = world.object("apps/v1", "Deployment", "ocr").await;
        let spec = &deployment.data["spec"];
        let image = &spec["template"]["spec"]["containers"][0]["image"];
        if image == "executor-wget:2" && spec["replicas"] == 3 {
            Ok(())
        } else {
            Err(format!("{image}, {}", spec["replicas"]))
        }
    })
    .await;
    deployer.remove(wanted.pipeline, &wanted.path).await.unwrap();
    assert!(world.names("apps/v1", "Deployment").await.is_empty());
}
