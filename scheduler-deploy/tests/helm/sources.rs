//! Charts from elsewhere: each kind of source, and what is not called or not taken.

use scheduler_core::port::deploy::{DeployError, Deployer as _};
use scheduler_deploy::helm::HelmDeployer;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::charts::FILES;
use crate::web::{Page, Web, packed};
use crate::world::World;

fn files() -> Vec<(&'static str, &'static str)> {
    let mut files = vec![("Chart.yaml", "apiVersion: v2\nname: ocr\nversion: 1.2.3\n")];
    files.extend(FILES);
    files
}

/// A world whose charts come from a server on loopback, which the operator allows.
async fn served() -> (World, Web) {
    let mut world = World::new().await;
    let web = Web::serve().await;
    let sources = &mut world.config.sources;
    sources.allowed = vec![web.url("/"), format!("oci://{}/charts", web.host)];
    sources.private_hosts = vec![web.host.clone()];
    sources.repositories = [("acme".to_owned(), web.url("/repository"))].into();
    sources.github = [(web.url("").trim_end_matches('/').to_owned(), web.url("/archives"))].into();
    (world, web)
}

async fn inspect(deployer: &HelmDeployer, world: &World, chart: &str) -> Result<Vec<String>, DeployError> {
    let wanted = world.wanted("ocr", chart);
    let facts = deployer
        .inspect(&wanted.path, &wanted.deployment.clone().into())
        .await;
    facts.map(|facts| facts.objects)
}

#[tokio::test]
async fn every_kind_of_source_gives_the_chart() {
    let (mut world, web) = served().await;
    let archive = packed("ocr", &files());
    let digest = hex(&archive);
    web.put("/a/ocr-1.2.3.tgz", Page::Redirect("/b/ocr.tgz".to_owned()));
    web.put("/b/ocr.tgz", Page::Bytes(archive.clone()));
    // A repository has more than the chart.
    let mut whole: Vec<(String, &str)> = files()
        .iter()
        .map(|(name, text)| (format!("deploy/ocr/{name}"), *text))
        .collect();
    whole.push(("README.md".to_owned(), "a repository"));
    let whole: Vec<(&str, &str)> = whole.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    let repository = packed("charts-main", &whole);
    web.put(
        "/archives/acme/charts/tar.gz/main",
        Page::Bytes(repository.clone()),
    );
    web.put(
        "/group/charts/-/archive/v1/charts-v1.tar.gz",
        Page::Bytes(repository),
    );
    let index = format!(
        "apiVersion: v1\nentries:\n  ocr:\n  - {{version: 1.2.3, urls: [../b/ocr.tgz], digest: {digest}}}\n  \
         - {{version: 1.0.0, urls: [../b/ocr.tgz], digest: {}}}\n",
        "0".repeat(64)
    );
    web.put("/repository/index.yaml", Page::Bytes(index.into_bytes()));
    let layer = json!({"mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip", "digest": format!("sha256:{digest}")});
    let manifest = json!({"schemaVersion": 2, "layers": [layer]}).to_string();
    web.put(
        "/v2/charts/ocr/manifests/1.2.3",
        Page::Bytes(manifest.into_bytes()),
    );
    web.put(
        &format!("/v2/charts/ocr/blobs/sha256:{digest}"),
        Page::Bytes(archive),
    );
    let github = std::mem::take(&mut world.config.sources.github);

    let deployer = world.deployer().await;
    let objects = ["ConfigMap/ocr-pipeline", "Deployment/ocr"];
    for chart in [
        web.url("/a/ocr-1.2.3.tgz"),
        web.url(&format!("/a/ocr-1.2.3.tgz#sha256={digest}")),
        web.url("/group/charts/-/tree/v1/deploy/ocr"),
        "acme/ocr".to_owned(),
        "acme/ocr@1.2.3".to_owned(),
        format!("oci://{}/charts/ocr:1.2.3", web.host),
        format!("oci://{}/charts/ocr:1.2.3@sha256:{digest}", web.host),
        world.chart("ocr", &FILES),
        format!("file://{}", world.chart("ocr", &FILES)),
    ] {
        let created = inspect(&deployer, &world, &chart).await;
        assert_eq!(
            created.unwrap_or_else(|error| panic!("{chart}: {error:?}")),
            objects,
            "{chart}"
        );
    }
    for (chart, problem) in [
        (
            web.url(&format!("/a/ocr-1.2.3.tgz#sha256={}", "1".repeat(64))),
            "is pinned to",
        ),
        ("acme/ocr@1.0.0".to_owned(), "the repository says"),
        (web.url("/nowhere.tgz"), "answers 404"),
        (format!("oci://{}/charts/other:1.0.0", web.host), "answers 404"),
        (
            format!("oci://{}/other/ocr:1.2.3", web.host),
            "no source that the operator",
        ),
        ("/etc".to_owned(), "no chart directory"),
    ] {
        let error = inspect(&deployer, &world, &chart).await.unwrap_err();
        assert!(error.to_string().contains(problem), "{chart}: {error}");
    }
    drop(deployer);

    world.config.sources.github = github;
    let deployer = world.deployer().await;
    let tree = web.url("/acme/charts/tree/main/deploy/ocr");
    assert_eq!(inspect(&deployer, &world, &tree).await.unwrap(), objects);
    let other = web.url("/acme/charts/tree/main/deploy/other");
    let error = inspect(&deployer, &world, &other).await.unwrap_err();
    assert!(error.to_string().contains("no Chart.yaml"), "{error}");
    assert!(world.copies().is_empty());
}

#[tokio::test]
async fn what_leads_to_other_places_or_does_not_end_is_not_followed() {
    let (mut world, web) = served().await;
    world.config.sources.github.clear();
    world.config.sources.max_archive_bytes = 1 << 20;
    let elsewhere = Web::serve().await;
    elsewhere.put("/secret.tgz", Page::Bytes(packed("ocr", &files())));
    web.put("/endless.tgz", Page::Endless);
    for (number, to) in [
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "https://169.254.169.254/a.tgz".to_owned(),
        "https://[::1]/a.tgz".to_owned(),
        "https://localhost:1/a.tgz".to_owned(),
        elsewhere.url("/secret.tgz"),
        "file:///etc/passwd".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        web.put(&format!("/{number}.tgz"), Page::Redirect(to));
    }
    web.put("/loop.tgz", Page::Redirect("/loop.tgz".to_owned()));
    web.put(
        "/page.tgz",
        Page::Bytes(b"<html>there is no such page</html>".to_vec()),
    );
    let deployer = world.deployer().await;
    for (path, problem) in [
        ("/0.tgz", "http:// is not called"),
        ("/1.tgz", "169.254.169.254 is no public address"),
        ("/2.tgz", "::1 is no public address"),
        ("/3.tgz", "is no public address"),
        ("/4.tgz", "http:// is not called"),
        ("/5.tgz", "file:// is not called"),
        ("/loop.tgz", "redirects more than 5 times"),
        ("/endless.tgz", "more than 1048576 bytes"),
        ("/page.tgz", "cannot be read"),
    ] {
        let error = inspect(&deployer, &world, &web.url(path)).await.unwrap_err();
        assert!(matches!(error, DeployError::Invalid { .. }), "{path}: {error:?}");
        assert!(error.to_string().contains(problem), "{path}: {error}");
    }
    assert!(
        elsewhere.asked().is_empty(),
        "it was called: {:?}",
        elsewhere.asked()
    );
    drop(deployer);

    // Without the operator's word even what is allowed as a source is not called on this machine.
    world.config.sources.private_hosts.clear();
    let deployer = world.deployer().await;
    let before = web.asked().len();
    let error = inspect(&deployer, &world, &web.url("/0.tgz")).await.unwrap_err();
    assert!(error.to_string().contains("http:// is not called"), "{error}");
    assert_eq!(web.asked().len(), before);
    assert!(world.copies().is_empty() && world.namespaces().await.is_empty());
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}
