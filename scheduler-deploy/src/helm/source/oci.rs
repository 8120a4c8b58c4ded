//! Charts in registries of container images (OCI).

use bytes::Bytes;
use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, WWW_AUTHENTICATE};
use scheduler_core::port::deploy::DeployError;
use serde::Deserialize;
use url::Url;

use super::bundle::sha256;
use super::client::{Answer, Fetcher};
use crate::chart::invalid;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CHART: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
/// Bytes of a manifest or a token.
const MAX_JSON: usize = 1 << 20;

/// A chart in a registry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Image {
    /// `host` or `host:port`.
    host: String,
    name: String,
    tag: String,
}

impl Image {
    pub(super) fn parse(url: &Url) -> Result<Self, DeployError> {
        let path = url.path().trim_matches('/');
        let host = url.host_str().unwrap_or_default();
        let host = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        match path.rsplit_once(':') {
            Some((name, tag)) if !name.is_empty() && !tag.is_empty() && !tag.contains('/') => Ok(Self {
                host,
                name: name.to_owned(),
                tag: tag.to_owned(),
            }),
            _ => Err(invalid(
                "chart",
                format!("{url} has no version; write oci://HOST/NAME:VERSION"),
            )),
        }
    }

    fn url(&self, fetcher: &Fetcher, rest: &str) -> Result<Url, DeployError> {
        let url = |scheme: &str| {
            let text = format!("{scheme}://{}/v2/{}/{rest}", self.host, self.name);
            Url::parse(&text).map_err(|error| invalid("chart", format!("{text}: {error}")))
        };
        let secure = url("https")?;
        let plain = url("http")?;
        // A registry on the operator's own network may speak plainly, as those for tests do.
        if fetcher.is_private(&plain) {
            Ok(plain)
        } else {
            Ok(secure)
        }
    }
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

/// The archive of a chart.
pub(super) async fn pull(fetcher: &Fetcher, image: &Image, max: usize) -> Result<Vec<u8>, DeployError> {
    let url = image.url(fetcher, &format!("manifests/{}", image.tag))?;
    let accept = (ACCEPT, MANIFEST.to_owned());
    let mut headers = vec![accept];
    let mut answer = fetcher.get(&url, &headers, MAX_JSON).await?;
    if answer.status == StatusCode::UNAUTHORIZED {
        let token = token(fetcher, &answer, &url).await?;
        headers.push((AUTHORIZATION, format!("Bearer {token}")));
        answer = fetcher.get(&url, &headers, MAX_JSON).await?;
    }
    let manifest: Manifest = parse(&answer.success(&url)?, &url)?;
    let layer = manifest.layers.iter().find(|layer| layer.media_type == CHART);
    let layer =
        layer.ok_or_else(|| invalid("chart", format!("{url} is no chart: it has no layer {CHART}")))?;
    let blob = image.url(fetcher, &format!("blobs/{}", layer.digest))?;
    let bytes = fetcher.get(&blob, &headers, max).await?.success(&blob)?;
    let is = format!("sha256:{}", sha256(&bytes));
    if layer.digest == is {
        Ok(bytes.into())
    } else {
        Err(invalid("chart", format!("{blob} has the digest {is}")))
    }
}

/// Public registries give a token to everybody who asks as they say.
async fn token(fetcher: &Fetcher, answer: &Answer, url: &Url) -> Result<String, DeployError> {
    let refused = || {
        invalid(
            "chart",
            format!("{url} wants to know who asks, in a way that is not known"),
        )
    };
    let challenge = answer
        .headers
        .get(WWW_AUTHENTICATE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(refused)?;
    let part = |name: &str| {
        let begins = format!("{name}=\"");
        let (_, rest) = challenge.split_once(&begins)?;
        rest.split('"').next()
    };
    let realm = part("realm").ok_or_else(refused)?;
    let mut realm = Url::parse(realm).map_err(|_| refused())?;
    for name in ["service", "scope"] {
        if let Some(value) = part(name) {
            realm.query_pairs_mut().append_pair(name, value);
        }
    }
    let answer = fetcher.get(&realm, &[], MAX_JSON).await?.success(&realm)?;
    parse::<Token>(&answer, &realm).map(|token| token.token)
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &Bytes, url: &Url) -> Result<T, DeployError> {
    serde_json::from_slice(bytes).map_err(|error| invalid("chart", format!("{url}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_host_name_and_version() {
        let parse = |text: &str| Image::parse(&Url::parse(text).unwrap());
        let image = parse("oci://registry.example:5000/charts/ocr:1.2.3").unwrap();
        let parts = (image.host.as_str(), image.name.as_str(), image.tag.as_str());
        assert_eq!(parts, ("registry.example:5000", "charts/ocr", "1.2.3"));
        for bad in [
            "oci://registry.example/charts/ocr",
            "oci://registry.example/:1",
            "oci://registry.example:5000/ocr",
        ] {
            assert!(
                parse(bad).unwrap_err().to_string().contains("has no version"),
                "{bad}"
            );
        }
    }
}
