//! Images that a test puts into the registry when it wants them to be there.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::sources::run;
use crate::world::led_to;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry that speaks plain HTTP, on loopback, from which the node takes images.
pub(crate) struct Registry {
    host: String,
}

impl Registry {
    /// The one that tests have.
    pub(crate) fn of_tests() -> Self {
        Self {
            host: led_to("SCHEDULER_TEST_REGISTRY"),
        }
    }

    /// One that need not be there.
    pub(crate) fn image(&self, repository: &str) -> Image {
        Image {
            name: format!("{}/{repository}:1", self.host),
            url: format!("http://{}/v2/{repository}", self.host),
        }
    }
}

/// An image that sleeps.
pub(crate) struct Image {
    name: String,
    url: String,
}

impl Image {
    /// As a pod names it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Makes it and puts it there.
    pub(crate) async fn push(&self) {
        let directory = tempfile::tempdir().unwrap();
        let layer = layer(directory.path());
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({"architecture": architecture, "os": "linux",
            "config": {"Entrypoint": ["/bin/busybox", "sleep", "3600"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]}});
        let config = config.to_string().into_bytes();
        let about = |kind: &str, bytes: &[u8]| -> Value {
            json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(bytes), "size": bytes.len()})
        };
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": about("config.v1+json", &config), "layers": [about("layer.v1.tar", &layer)]});
        self.put(layer).await;
        self.put(config).await;
        let put = reqwest::Client::new()
            .put(format!("{}/manifests/1", self.url))
            .header("content-type", MANIFEST)
            .body(manifest.to_string());
        put.send().await.unwrap().error_for_status().unwrap();
    }

    async fn put(&self, bytes: Vec<u8>) {
        let client = reqwest::Client::new();
        let begun = client.post(format!("{}/blobs/uploads/", self.url)).send().await;
        let begun = begun.unwrap().error_for_status().unwrap();
        let location = begun.headers()["location"].to_str().unwrap();
        let mut place = begun.url().join(location).unwrap();
        place.query_pairs_mut().append_pair("digest", &digest(&bytes));
        let put = client
            .put(place)
            .header("content-type", "application/octet-stream");
        put.body(bytes).send().await.unwrap().error_for_status().unwrap();
    }
}

fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

/// Busybox and nothing else, as an archive.
fn layer(directory: &Path) -> Vec<u8> {
    let path = std::env::var_os("PATH").unwrap();
    let busybox: PathBuf = std::env::split_paths(&path)
        .map(|place| place.join("busybox"))
        .find(|place| place.is_file())
        .unwrap();
    std::fs::create_dir_all(directory.join("root/bin")).unwrap();
    std::fs::copy(busybox, directory.join("root/bin/busybox")).unwrap();
    run("tar", directory, &["-cf", "layer.tar", "-C", "root", "."]);
    std::fs::read(directory.join("layer.tar")).unwrap()
}
