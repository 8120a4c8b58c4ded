//! Where helm learns of the cluster that this server deploys to.
//!
//! Nothing is left to helm itself: as it acts as another account, it takes its own default, a server on this host's port 8080, to be meant where
//! it finds no file, although it is in a pod.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

/// Where pods find who they are.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The file that helm is given; `None` if the variable `KUBECONFIG` says it, or nothing does. One for the account of this pod is written into the
/// directory, without the secret: helm reads the token where it is kept up to date.
pub(super) fn for_helm(
    said: Option<&Path>,
    directory: &Path,
    variable: impl Fn(&str) -> Option<OsString>,
) -> io::Result<Option<PathBuf>> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    if said.is_some() || variable("KUBECONFIG").is_some() {
        return Ok(said.map(Path::to_owned));
    }
    let usual = variable("HOME").map(|home| Path::new(&home).join(".kube/config"));
    if let Some(usual) = usual.filter(|usual| usual.is_file()) {
        return Ok(Some(usual));
    }
    let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
    let (Some(host), Some(port)) = (text("KUBERNETES_SERVICE_HOST"), text("KUBERNETES_SERVICE_PORT")) else {
        return Ok(None);
    };
    let file = directory.join("kubeconfig");
    std::fs::write(&file, of_pod(&host, &port).to_string())?;
    Ok(Some(file))
}

/// An address of IPv6 stands in brackets.
fn of_pod(host: &str, port: &str) -> serde_json::Value {
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let server = format!("https://{host}:{port}");
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "own", "cluster": {"server": server, "certificate-authority": format!("{ACCOUNT}/ca.crt")}}],
        "users": [{"name": "own", "user": {"tokenFile": format!("{ACCOUNT}/token")}}],
        "contexts": [{"name": "own", "context": {"cluster": "own", "user": "own"}}],
        "current-context": "own",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(said: Option<&str>, variables: &[(&str, &str)], directory: &Path) -> Option<PathBuf> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        for_helm(said.map(Path::new), directory, variable).unwrap()
    }

    #[test]
    fn helm_finds_the_cluster_where_the_server_does() {
        let directory = tempfile::tempdir().unwrap();
        let home = tempfile::tempdir().unwrap();
        let place = home.path().to_str().unwrap();
        let pod = [
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
            ("HOME", place),
        ];
        let said = found(Some("/file"), &pod, directory.path());
        assert_eq!(said, Some("/file".into()));
        let variable = [("KUBECONFIG", "/a:/b"), pod[0], pod[1]];
        assert_eq!(found(None, &variable, directory.path()), None);
        assert_eq!(found(None, &[], directory.path()), None);
        let written = found(None, &pod, directory.path()).unwrap();
        let text = std::fs::read_to_string(written).unwrap();
        let written: serde_json::Value = serde_json::from_str(&text).unwrap();
        let cluster = &written["clusters"][0]["cluster"];
        assert_eq!(cluster["server"], "https://10.96.0.1:443");
        std::fs::create_dir(home.path().join(".kube")).unwrap();
        std::fs::write(home.path().join(".kube/config"), "").unwrap();
        let usual = found(None, &pod, directory.path());
        assert_eq!(usual, Some(home.path().join(".kube/config")));
    }

    #[test]
    fn an_address_with_colons_stands_in_brackets() {
        let written = of_pod("fd00::1", "443");
        let cluster = &written["clusters"][0]["cluster"];
        assert_eq!(cluster["server"], "https://[fd00::1]:443");
    }
}
