//! What a client writes to mean a chart.

use std::path::PathBuf;

use scheduler_core::port::deploy::DeployError;
use url::Url;

use super::SourceRules;
use super::oci::Image;
use crate::chart::invalid;

/// Bytes of a reference.
const MAX_LENGTH: usize = 2048;
const FORMS: &str = "write a GitHub or GitLab tree URL, https://….tgz, oci://host/chart:version, repository/chart@version or a directory";

/// A chart that is meant, and the digest that it must have, in hexadecimal.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) origin: Origin,
    pub(super) digest: Option<String>,
}

/// Where it lies.
#[derive(Debug)]
pub(super) enum Origin {
    Directory(PathBuf),
    /// An archive, and the folder of it that is the chart; none if it has nothing else.
    Archive {
        url: Url,
        folder: Option<String>,
    },
    Oci(Image),
    Repository {
        /// The repository's URL, with a slash at its end.
        index: Url,
        chart: String,
        version: Option<String>,
    },
}

impl Reference {
    pub(super) fn parse(text: &str, rules: &SourceRules) -> Result<Self, DeployError> {
        if text.is_empty() || text.len() > MAX_LENGTH || text.chars().any(char::is_control) {
            let problem = format!("must be 1 to {MAX_LENGTH} characters, none of which controls; {FORMS}");
            return Err(invalid("chart", problem));
        }
        let (text, digest) = pinned(text)?;
        let origin = match text.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => Origin::Directory(path.into()),
            None if text.starts_with('/') => Origin::Directory(text.into()),
            Some(("oci", _)) => {
                let url = parse_url(text)?;
                rules.check(&url)?;
                Origin::Oci(Image::parse(&url)?)
            }
            Some(("https" | "http", _)) => {
                let url = parse_url(text)?;
                rules.check(&url)?;
                of_web(url, rules)?
            }
            None => of_repository(text, rules)?,
            Some(_) => return Err(invalid("chart", format!("is of no kind that is known; {FORMS}"))),
        };
        Ok(Self { origin, digest })
    }
}

/// `…@sha256:HEX` or `…#sha256=HEX`.
fn pinned(text: &str) -> Result<(&str, Option<String>), DeployError> {
    let (rest, digest) = match (text.split_once("@sha256:"), text.split_once("#sha256=")) {
        (Some((rest, digest)), _) | (None, Some((rest, digest))) => (rest, digest),
        (None, None) if text.contains('#') => {
            return Err(invalid(
                "chart",
                "what follows the # must be sha256=HEX, a digest",
            ));
        }
        (None, None) => return Ok((text, None)),
    };
    if digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok((rest, Some(digest.to_ascii_lowercase())))
    } else {
        Err(invalid(
            "chart",
            "the digest must be 64 hexadecimal digits of SHA-256",
        ))
    }
}

fn parse_url(text: &str) -> Result<Url, DeployError> {
    let url = Url::parse(text).map_err(|error| invalid("chart", format!("is no URL: {error}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("chart", "must not have a user or password in its URL"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(invalid("chart", "its URL has no host"));
    }
    Ok(url)
}

fn of_web(url: Url, rules: &SourceRules) -> Result<Origin, DeployError> {
    let path = url.path();
    if let Some((project, rest)) = path.trim_matches('/').split_once("/-/tree/") {
        return gitlab_tree(&url, project, rest);
    }
    let pages = url.origin().ascii_serialization();
    if let Some(archives) = rules.github.get(&pages) {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        return match parts.as_slice() {
            [owner, repository, "tree", branch, folder @ ..] => {
                let archive = format!("{archives}/{owner}/{repository}/tar.gz/{branch}");
                tree(&archive, folder)
            }
            _ => Err(invalid(
                "chart",
                format!("must be a folder there: {pages}/OWNER/REPOSITORY/tree/BRANCH/FOLDER"),
            )),
        };
    }
    if [".tgz", ".tar.gz"].iter().any(|ending| path.ends_with(ending)) {
        return Ok(Origin::Archive { url, folder: None });
    }
    Err(invalid(
        "chart",
        format!("does not end in .tgz and is no tree URL; {FORMS}"),
    ))
}

fn gitlab_tree(url: &Url, project: &str, rest: &str) -> Result<Origin, DeployError> {
    let mut parts = rest.split('/');
    let branch = parts.next().unwrap_or_default();
    let name = project.rsplit('/').next().unwrap_or_default();
    if branch.is_empty() || name.is_empty() {
        let problem = "must be a folder there: https://HOST/GROUP/PROJECT/-/tree/BRANCH/FOLDER";
        return Err(invalid("chart", problem));
    }
    let host = url.origin().ascii_serialization();
    let flat = branch.replace("%2F", "-");
    let archive = format!("{host}/{project}/-/archive/{branch}/{name}-{flat}.tar.gz");
    tree(&archive, &parts.collect::<Vec<_>>())
}

fn tree(archive: &str, folder: &[&str]) -> Result<Origin, DeployError> {
    let url = Url::parse(archive).map_err(|error| invalid("chart", format!("{archive}: {error}")))?;
    let folder = folder.join("/");
    if folder.contains('%') {
        return Err(invalid("chart", "the folder's name must not need to be encoded"));
    }
    Ok(Origin::Archive {
        url,
        folder: Some(folder),
    })
}

/// `name/chart` or `name/chart@version`.
fn of_repository(text: &str, rules: &SourceRules) -> Result<Origin, DeployError> {
    let (path, version) = match text.split_once('@') {
        Some((path, version)) => (path, Some(version.to_owned())),
        None => (text, None),
    };
    let Some((name, chart)) = path.split_once('/').filter(|(_, chart)| !chart.contains('/')) else {
        return Err(invalid("chart", format!("is of no kind that is known; {FORMS}")));
    };
    let Some(url) = rules.repositories.get(name) else {
        let problem =
            format!("there is no repository {name} here; the operator names them (--chart-repository)");
        return Err(invalid("chart", problem));
    };
    let index = format!("{}/", url.trim_end_matches('/'));
    Ok(Origin::Repository {
        index: parse_url(&index)?,
        chart: chart.to_owned(),
        version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> SourceRules {
        SourceRules {
            allowed: [
                "https://github.com/acme",
                "https://gitlab.com/",
                "https://charts.example/stable/",
                "oci://registry.example/charts",
            ]
            .map(str::to_owned)
            .to_vec(),
            repositories: [("acme".to_owned(), "https://charts.acme.example/all".to_owned())].into(),
            ..SourceRules::default()
        }
    }

    fn archive(text: &str) -> (String, Option<String>) {
        match Reference::parse(text, &rules()).unwrap().origin {
            Origin::Archive { url, folder } => (url.to_string(), folder),
            other => panic!("{text} is {other:?}"),
        }
    }

    #[test]
    fn trees_are_folders_of_archives() {
        assert_eq!(
            archive("https://github.com/acme/charts/tree/main/charts/ocr"),
            (
                "https://codeload.github.com/acme/charts/tar.gz/main".to_owned(),
                Some("charts/ocr".to_owned())
            )
        );
        assert_eq!(
            archive("https://gitlab.com/group/sub/project/-/tree/v1.0/deploy/chart"),
            (
                "https://gitlab.com/group/sub/project/-/archive/v1.0/project-v1.0.tar.gz".to_owned(),
                Some("deploy/chart".to_owned())
            )
        );
        assert_eq!(
            archive("https://charts.example/stable/ocr-1.0.0.tgz"),
            ("https://charts.example/stable/ocr-1.0.0.tgz".to_owned(), None)
        );
    }

    #[test]
    fn a_chart_of_a_repository_may_have_a_version() {
        let parsed = Reference::parse("acme/ocr@1.2.3", &rules()).unwrap();
        match parsed.origin {
            Origin::Repository {
                index,
                chart,
                version,
            } => {
                assert_eq!(index.as_str(), "https://charts.acme.example/all/");
                assert_eq!((chart.as_str(), version.as_deref()), ("ocr", Some("1.2.3")));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_digest_is_taken_in_two_spellings() {
        let hex = "AB".repeat(32);
        for text in [
            format!("https://charts.example/stable/a.tgz#sha256={hex}"),
            format!("oci://registry.example/charts/a:1@sha256:{hex}"),
        ] {
            let parsed = Reference::parse(&text, &rules()).unwrap();
            assert_eq!(parsed.digest, Some(hex.to_ascii_lowercase()), "{text}");
        }
    }

    #[test]
    fn what_is_not_taken_says_why() {
        for (text, problem) in [
            ("", "must be 1 to"),
            (
                "https://github.com/evil/charts/tree/main/a",
                "no source that the operator",
            ),
            (
                "https://github.com/acme-evil/charts/tree/main/a",
                "no source that the operator",
            ),
            (
                "https://github.com.evil.example/acme/c/tree/main/a",
                "no source that the operator",
            ),
            (
                "http://github.com/acme/charts/tree/main/a",
                "no source that the operator",
            ),
            (
                "https://github.com:8443/acme/charts/tree/main/a",
                "no source that the operator",
            ),
            (
                "https://github.com/acme/../evil/c/tree/main/a",
                "no source that the operator",
            ),
            ("https://user@github.com/acme/c/tree/main/a", "user or password"),
            ("https://github.com/acme/charts", "must be a folder there"),
            ("https://charts.example/stable/page.html", "does not end in .tgz"),
            ("https://charts.example/stable/a.tgz#v1", "must be sha256="),
            (
                "https://charts.example/stable/a.tgz#sha256=12",
                "64 hexadecimal digits",
            ),
            ("ftp://charts.example/stable/a.tgz", "no kind that is known"),
            ("other/chart", "there is no repository other"),
            ("justaname", "no kind that is known"),
        ] {
            let error = Reference::parse(text, &rules()).unwrap_err();
            assert!(error.to_string().contains(problem), "{text}: {error}");
        }
    }
}
