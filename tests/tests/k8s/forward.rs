//! An address of this machine that leads to a pod, in the place of a service's: nothing gives services addresses here.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Leads on until it is dropped. Who comes before it is known where to waits.
pub(crate) struct Forward {
    address: SocketAddr,
    to: watch::Sender<Option<SocketAddr>>,
    accepting: JoinHandle<()>,
}

impl Forward {
    /// At a free port of this address.
    pub(crate) async fn at(address: &str) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (to, target) = watch::channel(None);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // One that breaks off is no matter.
                tokio::spawn(lead(stream, target.clone()));
            }
        });
        Self {
            address,
            to,
            accepting,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn lead_to(&self, to: SocketAddr) {
        self.to.send_replace(Some(to));
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn lead(mut from: TcpStream, mut target: watch::Receiver<Option<SocketAddr>>) -> std::io::Result<()> {
    let known = target.wait_for(Option::is_some).await;
    let Some(target) = known.ok().and_then(|target| *target) else {
        return Ok(());
    };
    let mut to = TcpStream::connect(target).await?;
    tokio::io::copy_bidirectional(&mut from, &mut to).await?;
    Ok(())
}
