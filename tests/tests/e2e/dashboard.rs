//! The dashboard, as somebody sees it in a browser.

use serde_json::json;

use crate::browser::Browser;
use crate::world::{APPLICATION, World, run};

fn link(text: &str) -> String {
    format!("//a[normalize-space()='{text}']")
}

fn button(text: &str) -> String {
    format!("//button[normalize-space()='{text}']")
}

/// A card of a pipeline that shows this.
fn card(name: &str, value: &str) -> String {
    format!("//div[@class='card'][b[normalize-space()='{value}']][contains(., '{name}')]")
}

/// Where a page says that something was refused.
fn told(problem: &str) -> String {
    format!("//*[@id='problem'][contains(., '{problem}')]")
}

#[test]
fn a_task_is_submitted_and_its_output_is_read_as_text() {
    run(async {
        let mut world = World::start_alone().await;
        let markup = "<b id=\"injected\">bold</b>";
        let pipeline = world
            .shell(
                "markup",
                &[&format!("printf '%s' {markup:?}; printf ' %s' {{{{who}}}}")],
                json!({}),
            )
            .await;
        let browser = Browser::start().await;

        browser.open(world.nodes[0].server().http()).await;
        browser.click(&link(APPLICATION)).await;
        browser.click(&link("markup")).await;
        browser.click(&button("Pause")).await;
        browser.sees(&card("state", "paused")).await;
        assert_eq!(pipeline.view().await["paused"], true);

        browser
            .click("//summary[normalize-space()='Submit a task']")
            .await;
        browser.write("//textarea", "{\"who\": ").await;
        browser.click(&button("Submit")).await;
        browser.sees(&told("body: ")).await;
        browser.write("//textarea", "{\"who\": \"<i>you</i>\"}").await;
        browser.click(&button("Submit")).await;
        browser.sees(&card("waiting", "1")).await;
        browser.sees("//*[@id='problem'][@hidden]").await;
        browser.click(&button("Resume")).await;
        browser.sees(&card("succeeded", "1")).await;
        browser.click("//*[@id='submitted']/a").await;

        browser.sees("//span[@class='succeeded']").await;
        let outputs = browser.text("//h2[.='1:shell']/following-sibling::pre").await;
        assert_eq!(outputs, format!("{markup} <i>you</i>"));
        assert_eq!(
            browser.count("//*[@id='injected'] | //i").await,
            0,
            "an output became markup"
        );
        world.stop().await;
    });
}

#[test]
fn dead_letters_are_redriven_and_purged() {
    run(async {
        let mut world = World::start_alone().await;
        let policy = json!({"policy": {"retry": {"max_attempts": 1}}});
        let command = "test -e {{mark}} && exit 0; touch {{mark}}; echo no such luck >&2; exit 3";
        let pipeline = world.shell("fails", &[command], policy).await;
        let mark = |name: &str| json!({"mark": world.path().join(name)});
        let ids = [
            pipeline.submit(mark("first")).await,
            pipeline.submit(mark("second")).await,
        ];
        for id in &ids {
            pipeline.ended(id).await;
        }
        let browser = Browser::start().await;

        let page = format!(
            "{}/dashboard/#/{APPLICATION}/fails",
            world.nodes[0].server().http()
        );
        browser.open(&page).await;
        browser.sees(&card("dead letters", "2")).await;
        let row = format!("//tr[td/a[.='{}']][contains(., 'no such luck')]", ids[1]);
        browser.click(&format!("{row}{}", button("Redrive"))).await;
        browser.sees(&card("succeeded", "1")).await;
        browser.sees(&card("dead letters", "1")).await;
        assert_eq!(pipeline.ended(&ids[1]).await["state"], "succeeded");

        browser.click(&button("Purge all")).await;
        browser.confirm().await;
        browser.sees(&card("dead letters", "0")).await;
        assert_eq!(pipeline.view().await["counts"]["dead"], 0);
        assert_eq!(browser.count(&button("Redrive all")).await, 0);
        world.stop().await;
    });
}

#[test]
fn a_key_is_asked_for_where_one_is_needed() {
    run(async {
        let mut world = World::start_with(&["--api-key", "alice=alices-secret"]).await;
        let alices = world.api().with_key("alices-secret");
        let created = alices
            .post("/api/applications", &json!({"name": "alices"}))
            .await
            .unwrap();
        created.ok().unwrap();
        let browser = Browser::start().await;

        browser.open(world.nodes[0].server().http()).await;
        browser.sees(&told("key")).await;
        browser.write("//input[@name='key']", "somebody-elses").await;
        browser.click(&button("Use it")).await;
        browser.sees("//form[@id='key'][not(@hidden)]").await;
        browser.write("//input[@name='key']", "alices-secret").await;
        browser.click(&button("Use it")).await;
        browser.sees(&link("alices")).await;
        assert_eq!(browser.count("//form[@id='key'][not(@hidden)]").await, 0);
        world.stop().await;
    });
}
