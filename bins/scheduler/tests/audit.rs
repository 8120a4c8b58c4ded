//! `scheduler audit` says no where something does not add up. The nodes here say what they are told to; real ones are in `tests/`.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something unexpected happens"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};

/// The audit of a partition in which all adds up, or not.
fn partition(number: u32, adds_up: bool) -> String {
    format!(
        r#"{{"partition":{number},"offsets":9,"finished":5,"dead":1,"live":1,"parked":1,"absent":1,"lost":0,"adds_up":{adds_up}}}"#
    )
}

/// A node that has one pipeline of two partitions, and answers `audits` for it. It ends with the test's process.
fn node(audits: &[String]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let audits = format!("[{}]", audits.join(","));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line);
            }
            let path = lines[0].split(' ').nth(1).unwrap();
            let body = match path {
                "/api/applications" => r#"{"items":[{"name":"app","created_at":"then"}]}"#,
                "/api/applications/app/pipelines" => {
                    r#"{"items":[{"name":"ocr","application":"app","partitions":2,"deleting":false,"paused":false}]}"#
                }
                "/api/applications/app/pipelines/ocr/audit" => &audits,
                other => panic!("nobody asks for {other}"),
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream.get_mut().write_all((head + body).as_bytes()).unwrap();
        }
    });
    url
}

fn audit(nodes: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scheduler"))
        .args(["audit", "--patience", "0"])
        .args(nodes)
        .env_remove("SCHEDULER_API_KEY")
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn partitions_on_several_nodes_are_put_together() {
    let nodes = [node(&[partition(0, true)]), node(&[partition(1, true)])];
    let output = audit(&[&nodes[0], &nodes[1]]);
    assert!(output.status.success(), "{}", said(&output));
    let text = said(&output);
    assert!(
        text.contains("app/ocr partition 1: 9 offsets = 5 finished + 1 dead"),
        "{text}"
    );
    assert!(
        text.contains("1 pipelines, 2 partitions: every offset is accounted for"),
        "{text}"
    );
}

#[test]
fn what_does_not_add_up_is_a_failure() {
    let output = audit(&[&node(&[partition(0, true), partition(1, false)])]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("DOES NOT ADD UP") && said(&output).contains("1 of 2"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_partition_that_nobody_audits_is_a_failure() {
    let output = audit(&[&node(&[partition(0, true)])]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("partition 1: NOT AUDITED"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_node_that_is_away_is_named_if_it_matters() {
    let away = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{}", away.local_addr().unwrap());
    drop(away);
    let output = audit(&[&gone]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not answer"));
    let whole = node(&[partition(0, true), partition(1, true)]);
    assert!(audit(&[&gone, &whole]).status.success());
}
