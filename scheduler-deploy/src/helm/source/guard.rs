//! Which addresses may be called.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use url::{Host, Url};

/// Looks up names, and gives only what may be called: the connection goes to the very addresses that were looked at.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// `host` or `host:port`.
    private_hosts: Arc<[String]>,
}

impl Guard {
    pub(super) fn new(private_hosts: &[String]) -> Self {
        Self {
            private_hosts: private_hosts
                .iter()
                .map(|host| host.to_ascii_lowercase())
                .collect(),
        }
    }

    /// Whether the host of the URL may be of the operator's own network.
    pub(super) fn is_private_allowed(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let with_port = format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
        self.private_hosts
            .iter()
            .any(|allowed| allowed == host || *allowed == with_port)
    }

    /// Checks what needs no look-up: the scheme, and an address in the place of a name. Says what is wrong.
    pub(super) fn check(&self, url: &Url) -> Result<(), String> {
        let is_private_allowed = self.is_private_allowed(url);
        match url.scheme() {
            "https" => (),
            "http" if is_private_allowed => (),
            scheme => {
                return Err(format!(
                    "{scheme}:// is not called; only https is, or http on hosts that the operator allows (--chart-private-host)"
                ));
            }
        }
        let address: Option<IpAddr> = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) => None,
            None => return Err("the URL has no host".to_owned()),
        };
        match address {
            Some(address) if !is_private_allowed => refuse(address),
            _ => Ok(()),
        }
    }

    /// A resolver for requests to that URL.
    pub(super) fn resolver(&self, url: &Url) -> Resolver {
        Resolver {
            takes_private: self.is_private_allowed(url),
        }
    }
}

fn refuse(address: IpAddr) -> Result<(), String> {
    if is_public(address) {
        Ok(())
    } else {
        Err(format!(
            "{address} is no public address, and is not called unless the operator allows its host (--chart-private-host)"
        ))
    }
}

/// Looks up names for one request.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    takes_private: bool,
}

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let takes_private = self.takes_private;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if !takes_private {
                // One bad address among good ones is reason enough: no honest name mixes them.
                for address in &found {
                    refuse(address.ip()).map_err(|problem| {
                        io::Error::new(io::ErrorKind::PermissionDenied, format!("{name}: {problem}"))
                    })?;
                }
            }
            Ok(found.into_iter())
        })
    }
}

/// Whether it is an address of the internet: not of this machine, not of its networks, not of a cloud's metadata.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        // Shared by providers, protocol assignments, measurements, multicast and what is reserved.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b))
        || a >= 224)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // One of the other kind in disguise is what it is: mapped, translated (NAT64), 6to4.
    let parts = address.segments();
    let inner = |at: usize| Ipv4Addr::from((u32::from(parts[at]) << 16) | u32::from(parts[at + 1]));
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    if parts[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(inner(6));
    }
    if parts[0] == 0x2002 {
        return is_public_v4(inner(1));
    }
    // What is handed out to the internet, without documentation, Teredo and other special parts of it.
    let is_special = (parts[0] == 0x2001 && (parts[1] < 0x200 || parts[1] == 0xdb8))
        || (parts[0] == 0x3fff && parts[1] < 0x1000);
    (0x2000..0x4000).contains(&parts[0]) && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_machines_and_their_networks_are_not_public() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "140.82.121.4",
            "100.128.0.1",
            "2606:50c0:8000::154",
            "2a00:1450::1",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn an_address_is_an_address_however_it_is_written() {
        let guard = Guard::new(&[]);
        for url in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://017700000001/",
            "https://[::1]/",
            "https://[::ffff:7f00:1]/",
            "https://169.254.169.254/latest/meta-data",
        ] {
            let problem = guard.check(&Url::parse(url).unwrap()).unwrap_err();
            assert!(problem.contains("no public address"), "{url}: {problem}");
        }
    }

    #[test]
    fn a_host_that_is_allowed_may_be_private_and_plain() {
        let guard = Guard::new(&["127.0.0.1:8080".to_owned(), "charts.lan".to_owned()]);
        for (url, ok) in [
            ("http://127.0.0.1:8080/a", true),
            ("http://127.0.0.1:8081/a", false),
            ("http://charts.lan/a", true),
            ("http://example.com/a", false),
            ("https://example.com/a", true),
        ] {
            assert_eq!(guard.check(&Url::parse(url).unwrap()).is_ok(), ok, "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_not_called() {
        use tower::Service as _;
        let guard = Guard::new(&[]);
        let mut resolver = guard.resolver(&Url::parse("https://localhost/").unwrap());
        let refused = resolver.call("localhost".parse().unwrap()).await.unwrap_err();
        assert!(refused.to_string().contains("no public address"), "{refused}");
    }
}
