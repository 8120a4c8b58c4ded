//! TLS to TiDB as the URL asks for it, and what is said when it cannot be had.

#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]

mod common;

use std::error::Error as _;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use scheduler_core::port::catalog::Catalog as _;
use scheduler_tidb::{ConnectError, TidbConfig, TidbStore};

use self::common::{Scratch, named};

/// The certificate of an authority that nobody here has a certificate of.
const STRANGER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/stranger.pem");

async fn scratch() -> Scratch {
    Scratch::on(named("SCHEDULER_TEST_TIDB_TLS")).await
}

async fn connect(url: &str, query: &str) -> Result<TidbStore, ConnectError> {
    TidbStore::connect(&format!("{url}?{query}"), Scratch::config()).await
}

/// What is wrong, if it is wrong about TLS.
async fn refusal(url: &str, query: &str) -> String {
    match connect(url, query).await {
        Err(error @ ConnectError::Tls { .. }) => format!("{error}: {}", error.source().unwrap()),
        Err(other) => panic!("{query}: {other:?}"),
        Ok(_) => panic!("{query}: connected"),
    }
}

#[tokio::test]
async fn a_server_is_verified_by_the_authority_that_the_url_names() {
    let scratch = scratch().await;
    let ca = named("SCHEDULER_TEST_TIDB_CA");
    for mode in ["VERIFY_CA", "VERIFY_IDENTITY"] {
        let query = format!("ssl-mode={mode}&ssl-ca={ca}");
        let store = connect(&scratch.url(), &query).await.unwrap();
        // By a connection of the pool.
        store.snapshot().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_another_authority_signed_is_refused() {
    let url = scratch().await.url();
    for query in [
        format!("ssl-mode=VERIFY_CA&ssl-ca={STRANGER}"),
        "ssl-mode=VERIFY_CA".to_owned(),
    ] {
        let said = refusal(&url, &query).await;
        assert!(said.contains("`ssl-ca` of the URL must be"), "{said}");
        assert!(said.contains("UnknownIssuer"), "{said}");
    }
}

#[tokio::test]
async fn an_authority_that_cannot_be_read_is_told_from_a_server_that_is_away() {
    let url = scratch().await.url();
    refusal(&url, "ssl-mode=VERIFY_CA&ssl-ca=/nonexistent/ca.pem").await;
    let away = connect("mysql://root@127.0.0.1:1/x", "ssl-mode=VERIFY_CA").await;
    assert!(matches!(away, Err(ConnectError::Unreachable { .. })), "{away:?}");
}

/// The greeting of a server of the `MySQL` protocol that has no TLS: version 10, its name, connection 1, half of the nonce, what it can but
/// `CLIENT_SSL` (0x0800), a character set, a status, the rest of what it can, the nonce's length and its other half, and how it is logged in.
fn greeting() -> Vec<u8> {
    let mut body = b"\x0a8.0.11-TiDB\0\x01\0\0\0abcdefgh\0".to_vec();
    body.extend(0xa208_u16.to_le_bytes());
    body.extend(b"\x2d\x02\0");
    body.extend(0x0008_u16.to_le_bytes());
    body.extend(b"\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0mysql_native_password\0");
    let length = u32::try_from(body.len()).unwrap();
    let mut packet = length.to_le_bytes()[..3].to_vec();
    packet.push(0);
    packet.extend(body);
    packet
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_the_url_asks_for_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&greeting()).unwrap();
        // Nothing may be said in the open.
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        said
    });
    let url = format!("mysql://root:secret@127.0.0.1:{port}/x");
    let error = TidbStore::connect(&format!("{url}?ssl-mode=REQUIRED"), TidbConfig::default())
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("server does not support TLS"), "{cause}");
    assert!(server.join().unwrap().is_empty());
}
