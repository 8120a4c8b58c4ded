use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio::net::TcpListener;

/// How commands are run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The shell that runs each command with `-c`. Default `sh`.
    pub shell: String,
    /// Bytes kept of one command's standard output. Default 1 MiB; all outputs of a call together stay below 3.5 MiB,
    /// so that the answer fits into a gRPC message of the usual size.
    pub max_output_bytes: usize,
    /// Calls that run at once; more are answered with `RESOURCE_EXHAUSTED`. Default 64.
    pub max_calls: usize,
    /// What a command has between SIGTERM and SIGKILL. Default 5 s.
    pub kill_grace: Duration,
    /// On stopping: how long calls go on being served, at most. Default 25 s.
    pub drain_timeout: Duration,
    /// On stopping: with no call for so long, the server ends at once. A worker that drains at the same time may
    /// have steps left to run here. Default 1 s.
    pub drain_idle: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shell: "sh".to_owned(),
            max_output_bytes: 1024 * 1024,
            max_calls: 64,
            kill_grace: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(25),
            drain_idle: Duration::from_secs(1),
        }
    }
}

/// `127.0.0.1:50051`, or `:50051` for every interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ListenAddress {
    /// This address only.
    One(SocketAddr),
    /// Every interface, IPv6 and IPv4.
    Every {
        /// The port.
        port: u16,
    },
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = match text.strip_prefix(':') {
            Some(port) => port.parse().ok().map(|port| Self::Every { port }),
            None => text.parse().ok().map(Self::One),
        };
        parsed.ok_or_else(|| format!("`{text}` is no address; use `:50051` or `127.0.0.1:50051`"))
    }
}

impl ListenAddress {
    /// Opens the port.
    ///
    /// # Errors
    ///
    /// Those of the system, such as a port in use.
    pub async fn bind(self) -> io::Result<TcpListener> {
        match self {
            Self::One(address) => TcpListener::bind(address).await,
            Self::Every { port } => {
                let on = |address: IpAddr| TcpListener::bind((address, port));
                match on(Ipv6Addr::UNSPECIFIED.into()).await {
                    // A machine without IPv6.
                    Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                        on(Ipv4Addr::UNSPECIFIED.into()).await
                    }
                    result => result,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_existing_charts_are_read() {
        assert_eq!(":50051".parse(), Ok(ListenAddress::Every { port: 50051 }));
        assert_eq!(
            "127.0.0.1:1".parse(),
            Ok(ListenAddress::One(([127, 0, 0, 1], 1).into()))
        );
        for bad in ["", "50051", ":", ":70000", "localhost:50051"] {
            assert!(
                bad.parse::<ListenAddress>().unwrap_err().contains("use `:50051`"),
                "{bad}"
            );
        }
    }
}
