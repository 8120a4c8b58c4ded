//! A web server of a test's own, which stands for the hosts of charts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What is answered at a path.
#[derive(Clone)]
pub(crate) enum Page {
    Bytes(Vec<u8>),
    Redirect(String),
    /// Bytes for ever.
    Endless,
}

#[derive(Clone)]
pub(crate) struct Web {
    pub(crate) host: String,
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Web {
    pub(crate) async fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let web = Self {
            host: listener.local_addr().unwrap().to_string(),
            pages: Arc::default(),
            asked: Arc::default(),
        };
        let serving = web.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let web = serving.clone();
                // A client that goes away in the middle is no matter.
                tokio::spawn(async move { web.answer(stream).await.ok() });
            }
        });
        web
    }

    pub(crate) fn put(&self, path: &str, page: Page) {
        self.pages.lock().unwrap().insert(path.to_owned(), page);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host)
    }

    /// Paths that were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    async fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let byte = stream.read_u8().await?;
            request.push(byte);
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
        self.asked.lock().unwrap().push(path.clone());
        let page = self.pages.lock().unwrap().get(&path).cloned();
        let head = match &page {
            None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n".to_owned(),
            Some(Page::Bytes(bytes)) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", bytes.len()),
            Some(Page::Redirect(to)) => {
                format!("HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {to}\r\n")
            }
            Some(Page::Endless) => "HTTP/1.1 200 OK\r\n".to_owned(),
        };
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(b"Connection: close\r\n\r\n").await?;
        match page {
            Some(Page::Bytes(bytes)) => stream.write_all(&bytes).await?,
            Some(Page::Endless) => loop {
                stream.write_all(&[0; 8_192]).await?;
            },
            _ => (),
        }
        stream.shutdown().await
    }
}

/// An archive of files below a top folder.
pub(crate) fn packed(top: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, format!("{top}/{name}"), text.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}
