//! TiDB as one process: built as a Go module, with its embedded storage on disk instead of a cluster's.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cache::{self, make, produced, write};
use super::golang::go;
use super::keys;
use super::process::Record;
use crate::Failed;

/// What is built: a commit of the 8.5 line. Its repository has no tags that Go takes for versions.
const COMMIT: &str = "20251126154744-e4e814fdc0af";
/// What it says of itself.
pub(crate) const VERSION: &str = "8.5-20251126";
/// Its name among the services.
pub(crate) const NAME: &str = "tidb";
/// Its ports as they are documented: `MySQL` protocol, status over HTTP.
pub(crate) const USUAL_PORTS: [u16; 2] = [24_000, 24_080];
/// How long a question may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Where the server's binary is; built if it is not there.
pub(crate) fn binary() -> Result<PathBuf, Failed> {
    let cache = cache::directory(NAME)?;
    let binary = cache.join(format!("tidb-server-{COMMIT}"));
    if binary.exists() {
        return Ok(binary);
    }
    let _lock = cache::lock(&cache)?;
    produced(&binary, |partial| {
        println!("building TiDB {VERSION} with Go (once; about 7 minutes on 2 cores)");
        let source = cache.join("source");
        make(&source)?;
        // What an interrupted build wrote into it is written anew.
        write(&source.join("go.mod"), &module())?;
        let log = cache.join("build.log");
        let mut get = go(&source);
        get.args(["get", "-tool"]).arg(format!(
            "github.com/pingcap/tidb/cmd/tidb-server@v1.1.0-beta.0.{COMMIT}"
        ));
        cache::run(get, &log)?;
        let mut build = go(&source);
        build
            .args(["build", "-mod=mod", "-trimpath", "-ldflags", "-s -w", "-o"])
            .arg(partial)
            .arg("github.com/pingcap/tidb/cmd/tidb-server");
        cache::run(build, &log)
    })?;
    Ok(binary)
}

fn module() -> String {
    format!(
        "module tidb-server-tool\n\ngo 1.25\n\n\
         require (\n\tgithub.com/pingcap/tidb v1.1.0-beta.0.{COMMIT}\n\tgithub.com/pingcap/tidb/pkg/parser v0.0.0-{COMMIT}\n)\n\n\
         // As in the module's own go.mod, which does not reach those who depend on it.\n\
         replace github.com/go-ldap/ldap/v3 => github.com/YangKeao/ldap/v3 v3.4.5-0.20230421065457-369a3bab1117\n\n\
         replace sourcegraph.com/sourcegraph/appdash => github.com/sourcegraph/appdash v0.0.0-20190731080439-ebfcffb1b5c0\n\n\
         replace sourcegraph.com/sourcegraph/appdash-data => github.com/sourcegraph/appdash-data v0.0.0-20151005221446-73f23eafcf67\n"
    )
}

/// What identifies the process: an argument with its data directory.
pub(crate) fn mark(run: &Path) -> String {
    format!("--path={}", run.join("tidb-data").display())
}

/// Where its keys lie, if it has TLS.
pub(crate) fn keys(run: &Path) -> PathBuf {
    run.join("tidb-keys")
}

/// Makes them, unless they are there: from then on the server of this run directory has TLS, for those who want it.
pub(crate) fn make_keys(run: &Path) -> Result<(), Failed> {
    let keys = keys(run);
    keys::of_server(&keys)?;
    let file = |name: &str| keys.join(name).display().to_string();
    let configuration = format!(
        "[security]\nssl-cert = {:?}\nssl-key = {:?}\n",
        file("server.crt"),
        file("server.key")
    );
    write(&configuration_file(&keys), &configuration)
}

fn configuration_file(keys: &Path) -> PathBuf {
    keys.join("tidb.toml")
}

/// Starts it, unless it runs.
pub(crate) fn start(run: &Path, binary: &Path, record: &mut Record) -> Result<(), Failed> {
    if record.running().is_some() {
        return Ok(());
    }
    let temporary = run.join("tidb-tmp");
    make(&temporary)?;
    let (port, status) = (record.ports[0].to_string(), record.ports[1].to_string());
    let mut command = Command::new(binary);
    command
        .arg(&record.mark)
        .args(["--store=unistore", "--socket=", "-L", "warn"])
        .args(["--host", "127.0.0.1", "-P", &port])
        .args(["--status-host", "127.0.0.1", "--status", &status])
        .arg(format!("--temp-dir={}", temporary.display()))
        // It makes directories where it is started.
        .current_dir(&temporary);
    let keys = keys(run);
    if keys.exists() {
        command.arg("--config").arg(configuration_file(&keys));
    }
    record.start(run, command)
}

/// Whether it says over HTTP that it is up.
pub(crate) fn is_up(status_port: u16) -> bool {
    answers(status_port, "/status")
}

/// Whether a request over HTTP is answered with 200.
pub(crate) fn answers(port: u16, path: &str) -> bool {
    ask(port, path)
        .is_some_and(|answer| answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200"))
}

fn ask(port: u16, path: &str) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    stream.take(64 << 10).read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_names_one_commit_twice() {
        assert_eq!(module().matches(COMMIT).count(), 2);
        assert!(COMMIT.starts_with(VERSION.trim_start_matches("8.5-")));
    }

    #[test]
    fn only_a_good_status_is_up() {
        for (says, up) in [
            ("HTTP/1.1 200 OK\r\n\r\n{}", true),
            ("HTTP/1.0 200 OK\r\n\r\n{}", true),
            ("HTTP/1.1 500 no\r\n\r\n", false),
            ("", false),
        ] {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = [0; 512];
                assert!(stream.read(&mut asked).unwrap() > 0);
                stream.write_all(says.as_bytes()).unwrap();
            });
            assert_eq!(is_up(port), up, "{says:?}");
            server.join().unwrap();
        }
    }
}
