//! The introduction's two requests, and the charts that come along.

use scheduler_examples::{Pictures, directory};
use serde_json::{Value, json};

use crate::world::{World, run};

fn chart(name: &str) -> Value {
    json!(directory().join("charts").join(name))
}

#[test]
fn two_requests_deploy_a_pipeline_and_recognise_the_text_on_a_picture() {
    run(async {
        let mut world = World::start().await;
        let pictures = Pictures::serve().await.unwrap();
        let api = world.api();
        let new = json!({"name": "ocr", "chart": chart("ocr")});
        let created = api
            .post("/api/applications/myname/pipelines", &new)
            .await
            .unwrap();
        assert_eq!(created.status, 201, "{}", created.body);
        assert_eq!(created.location, "/api/applications/myname/pipelines/ocr");

        let url = pictures.url("library");
        let submitted = api
            .post("/api/applications/myname/pipelines/ocr", &json!({"url": url}))
            .await
            .unwrap();
        assert_eq!(submitted.status, 202, "{}", submitted.body);
        let id = submitted.body["id"].as_str().unwrap();
        assert_eq!(
            submitted.location,
            format!("/api/applications/myname/pipelines/ocr/tasks/{id}")
        );

        let done = api
            .get(&format!("{}?wait=60s", submitted.location))
            .await
            .unwrap();
        assert_eq!(
            (done.status.as_u16(), &done.body["state"]),
            (200, &json!("succeeded")),
            "{}",
            done.body
        );
        let outputs = done.body["output"].as_object().unwrap();
        assert_eq!(outputs.keys().collect::<Vec<_>>(), ["1:wget", "2:tesseract"]);
        let read = outputs["2:tesseract"][1].as_str().unwrap();
        assert_eq!(read.trim(), Pictures::text("library").unwrap().trim());
        world.stop().await;
    });
}

#[test]
fn every_picture_is_read_as_it_is_known_to_be() {
    run(async {
        let mut world = World::start().await;
        let pictures = Pictures::serve().await.unwrap();
        let ocr = world.pipeline("ocr", json!({"chart": chart("ocr")})).await;
        let names = Pictures::names().unwrap();
        assert!(names.len() >= 3, "{names:?}");
        let ids = ocr
            .submit_all(names.iter().map(|name| json!({"url": pictures.url(name)})))
            .await;
        for (name, id) in names.iter().zip(&ids) {
            let output = ocr.output(id).await;
            let read = output["2:tesseract"][1].as_str().unwrap();
            assert_eq!(read.trim(), Pictures::text(name).unwrap().trim());
        }
        world.stop().await;
    });
}

#[test]
fn a_picture_that_is_not_there_is_a_dead_letter_that_says_so() {
    run(async {
        let mut world = World::start().await;
        let pictures = Pictures::serve().await.unwrap();
        let policy = json!({"retry": {"max_attempts": 2, "initial_backoff": "10ms"}});
        let ocr = world
            .pipeline("ocr", json!({"chart": chart("ocr"), "policy": policy}))
            .await;
        let id = ocr.submit(json!({"url": pictures.url("missing")})).await;
        let task = ocr.ended(&id).await;
        assert_eq!(
            (&task["state"], &task["attempts"]),
            (&json!("dead"), &json!(2)),
            "{task}"
        );
        let error = task["error"].as_str().unwrap();
        assert!(error.contains("wget") && error.contains("404"), "{error}");
        world.stop().await;
    });
}

#[test]
fn the_coreutils_chart_counts_words() {
    run(async {
        let mut world = World::start().await;
        let coreutils = world
            .pipeline("coreutils", json!({"chart": chart("coreutils")}))
            .await;
        let id = coreutils.submit(json!({"text": "to be or not to be"})).await;
        let expected = json!({
            "1:text": [""],
            "2:count": [
                "      2 be\n      2 to\n      1 not\n      1 or\n",
                "6\n",
                // Of the text and a line's end.
                "4e40bfdae6cdc9353075d9e1473b7854a1b834bb60146d6f16cb640fff79996c\n",
            ],
        });
        assert_eq!(coreutils.output(&id).await, expected);
        world.stop().await;
    });
}
