//! A TCP link that can be cut and delayed.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Read at once, at most.
const CHUNK: usize = 16 << 10;

/// How the link is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Weather {
    /// Nothing gets through, and what is connected breaks.
    pub(crate) cut: bool,
    /// How much later everything comes, each way.
    pub(crate) delay: Duration,
}

/// Listens on a port of its own until it is dropped.
#[derive(Debug)]
pub(crate) struct Link {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    upstream: watch::Sender<Option<SocketAddr>>,
}

impl Link {
    /// A link that leads nowhere yet.
    pub(crate) async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (weather, seen) = watch::channel(Weather::default());
        let (upstream, target) = watch::channel(None);
        tokio::spawn(accept(listener, target, seen));
        Ok(Self {
            address,
            weather,
            upstream,
        })
    }

    /// Leads it there from now on.
    pub(crate) fn lead_to(&self, upstream: SocketAddr) {
        self.upstream.send_replace(Some(upstream));
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

async fn accept(
    listener: TcpListener,
    upstream: watch::Receiver<Option<SocketAddr>>,
    mut weather: watch::Receiver<Weather>,
) {
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted,
            // Whoever made the link has dropped it.
            Err(_) = weather.wait_for(|_| false) => return,
        };
        let Ok((client, _)) = client else { continue };
        let target = *upstream.borrow();
        let (Some(target), false) = (target, weather.borrow().cut) else {
            continue;
        };
        tokio::spawn(carry(client, target, weather.clone()));
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    // Small messages in turn: waiting for more to send with them would be a delay that nobody asked for.
    let _ = client.set_nodelay(true).and(server.set_nodelay(true));
    let delay = weather.clone();
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    tokio::select! {
        _ = pump(client_reads, server_writes, &delay) => {}
        _ = pump(server_reads, client_writes, &delay) => {}
        _ = weather.wait_for(|weather| weather.cut) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    weather: &watch::Receiver<Weather>,
) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        let delay = weather.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        to.write_all(&chunk[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cut_breaks_what_is_connected_and_lets_nothing_new_through_until_it_is_mended() {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = echo.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut reads, mut writes) = stream.split();
                    let _ = tokio::io::copy(&mut reads, &mut writes).await;
                });
            }
        });
        let link = Link::start().await.unwrap();
        link.lead_to(target);
        let mut byte = [0];
        let mut first = TcpStream::connect(link.address).await.unwrap();
        first.write_all(b"x").await.unwrap();
        first.read_exact(&mut byte).await.unwrap();

        link.set(Weather {
            cut: true,
            ..Weather::default()
        });
        assert_eq!(first.read(&mut byte).await.unwrap_or(0), 0);
        let mut second = TcpStream::connect(link.address).await.unwrap();
        assert_eq!(second.read(&mut byte).await.unwrap_or(0), 0);

        link.set(Weather::default());
        let mut third = TcpStream::connect(link.address).await.unwrap();
        third.write_all(b"y").await.unwrap();
        third.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"y");
    }
}
