//! Certificates and keys of a run directory, made by `openssl`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::cache::{make, write};
use crate::Failed;

/// Small and quick to make.
const NEW_KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
];
const DAYS: &str = "3650";

/// What a server on this machine is certified for.
pub(super) const LOOPBACK: &str = "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n";

/// Makes the authority of a directory: `ca.key`, and `ca.crt` for those who are to trust it.
pub(super) fn authority(keys: &Path) -> Result<(), Failed> {
    make(keys)?;
    openssl(
        keys,
        &[
            &["req", "-x509"],
            &NEW_KEY[..],
            &["-days", DAYS, "-keyout", "ca.key", "-out", "ca.crt"],
            &["-subj", "/CN=loopback"],
            &["-addext", "basicConstraints=critical,CA:TRUE"],
            &[
                "-addext",
                "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
            ],
        ],
    )
}

/// Makes a key, and a certificate for it by the authority: `NAME.key`, `NAME.crt`.
pub(super) fn certify(keys: &Path, name: &str, subject: &str, extension: &str) -> Result<(), Failed> {
    let file = |ending: &str| format!("{name}.{ending}");
    let (key, request, extensions, certificate) = (file("key"), file("csr"), file("ext"), file("crt"));
    openssl(
        keys,
        &[
            &["req", "-new"],
            &NEW_KEY[..],
            &["-keyout", &key, "-out", &request, "-subj", subject],
        ],
    )?;
    write(&keys.join(&extensions), extension)?;
    openssl(
        keys,
        &[
            &["x509", "-req", "-days", DAYS],
            &["-in", &request, "-out", &certificate],
            &["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"],
            &["-extfile", &extensions],
        ],
    )
}

/// Makes authority, key and certificate of a server that listens on this machine, unless they are there.
pub(super) fn of_server(keys: &Path) -> Result<(), Failed> {
    // The last that is made: with it all are there.
    if keys.join("server.crt").exists() {
        return Ok(());
    }
    authority(keys)?;
    certify(keys, "server", "/CN=localhost", LOOPBACK)
}

/// Keeps a file from others.
pub(super) fn private(path: &Path) -> Result<(), Failed> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(|error| format!("{}: {error}", path.display()))
}

pub(super) fn openssl(directory: &Path, arguments: &[&[&str]]) -> Result<(), Failed> {
    let mut command = Command::new("openssl");
    command
        .current_dir(directory)
        .args(arguments.concat())
        .stdin(Stdio::null());
    let shown = crate::run::shown(&command);
    let output = command
        .output()
        .map_err(|error| format!("`{shown}` did not start: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        let problem = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("`{shown}` failed: {}\n{problem}", output.status))
    }
}
