//! A browser of a test's own: Chromium, used as a reader uses it.

use std::process::Stdio;
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How long a page may take to show something, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_mins(1);

/// The port that it takes as a free one may be somebody's by the time it does, and then it ends.
const DRIVERS: usize = 5;

/// Chromium with one page. It ends when this is dropped.
pub(crate) struct Browser {
    page: Client,
    chromium: Pid,
    _driver: Child,
    _said: Lines<BufReader<ChildStdout>>,
    _profile: TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let (driver, said, port) = drive().await;
        let profile = tempfile::tempdir().unwrap();
        let options = json!({"args": [
            "--headless=new",
            // Its sandbox does not take root, as which tests may run.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            format!("--user-data-dir={}", profile.path().display()),
        ]});
        let page = ClientBuilder::new(HttpConnector::new())
            .capabilities(Map::from_iter([("goog:chromeOptions".to_owned(), options)]))
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        let chromium = page.capabilities().unwrap()["goog:processID"].as_i64().unwrap();
        Self {
            page,
            chromium: Pid::from_raw(i32::try_from(chromium).unwrap()),
            _driver: driver,
            _said: said,
            _profile: profile,
        }
    }

    pub(crate) async fn open(&self, url: &str) {
        self.page.goto(url).await.unwrap();
    }

    /// The element at this place, once it is there.
    async fn find(&self, path: &str) -> Element {
        let found = self
            .page
            .wait()
            .at_most(PATIENCE)
            .for_element(Locator::XPath(path));
        match found.await {
            Ok(element) => element,
            Err(error) => panic!("{path}: {error}; the page says:\n{}", self.text("//body").await),
        }
    }

    /// Waits until this is there.
    pub(crate) async fn sees(&self, path: &str) {
        self.find(path).await;
    }

    /// What is written there now.
    pub(crate) async fn text(&self, path: &str) -> String {
        let element = self.page.find(Locator::XPath(path)).await.unwrap();
        element.text().await.unwrap()
    }

    pub(crate) async fn count(&self, path: &str) -> usize {
        self.page.find_all(Locator::XPath(path)).await.unwrap().len()
    }

    /// Clicks there. A page that is shown anew meanwhile is looked at again.
    pub(crate) async fn click(&self, path: &str) {
        loop {
            match self.find(path).await.click().await {
                Err(error) if error.is_stale_element_reference() => {}
                outcome => return outcome.unwrap(),
            }
        }
    }

    /// Writes `text` into a field, in place of what is in it.
    pub(crate) async fn write(&self, path: &str, text: &str) {
        let field = self.find(path).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Says yes to what the page asks.
    pub(crate) async fn confirm(&self) {
        self.page.accept_alert().await.unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill(self.chromium, Signal::SIGKILL);
    }
}

/// Starts chromedriver: itself, what it says, and its port.
async fn drive() -> (Child, Lines<BufReader<ChildStdout>>, String) {
    let mut last = Vec::new();
    for _ in 0..DRIVERS {
        last.clear();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver does not start: `apt-get install chromium chromium-driver`, or `cargo xtask test`");
        let mut said = BufReader::new(driver.stdout.take().unwrap()).lines();
        while let Some(line) = said.next_line().await.unwrap() {
            if let Some((_, port)) = line.split_once("successfully on port ") {
                return (driver, said, port.trim_end_matches('.').to_owned());
            }
            last.push(line);
        }
    }
    panic!("chromedriver ends as soon as it is started:\n{}", last.join("\n"));
}
