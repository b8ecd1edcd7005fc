//! Peers in processes of their own:
//!
//! 1. what a peer answers arrives, and it is ended when it is dropped;
//! 2. one that says nonsense, refuses, or dies gives an error that names it, and nobody waits.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tierce_bench::backend::Unbounded;
use tierce_bench::peer::{Job, Peer, Place};

const JOB: Job = Job { keys: 100, requests: 200, round: 3, threads: 1 };

/// A program that answers each line it reads with the next of these.
fn peer(directory: &Path, answers: &[&str]) -> PathBuf {
    let path = directory.join("peer");
    // Closed before it is run: a file that somebody writes cannot be.
    let mut file = std::fs::File::create(&path).expect("a file");
    writeln!(file, "#!/bin/sh").expect("a line");
    for answer in answers {
        writeln!(file, "read order\necho '{answer}'").expect("a line");
    }
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}

fn place(directory: &Path) -> Place {
    let engine = "any".to_owned();
    Place { directory: directory.to_owned(), bytes: 1 << 20, memory_bytes: 1 << 10, engine }
}

#[test]
fn an_outcome_arrives_as_it_was_sent() {
    let directory = tempfile::tempdir().expect("a directory");
    let wanted = JOB.run(&Unbounded::default()).expect("it runs");
    let ran = format!("{{\"ran\":{}}}", serde_json::to_string(&wanted).expect("JSON"));
    let program = peer(directory.path(), &["{\"ready\":\"as told\"}", &ran]);
    let mut peer = Peer::start(&program, &place(directory.path())).expect("it starts");
    assert_eq!(peer.settings(), "as told");
    let outcome = peer.run(&JOB).expect("it answers");
    assert_eq!((outcome.hits, outcome.requests), (wanted.hits, 200));
    assert_eq!(outcome.hit_us, wanted.hit_us);
}

#[test]
fn a_peer_that_fails_is_named() {
    let ready = "{\"ready\":\"\"}";
    let failures: [(&[&str], &str); 4] = [
        (&[], "peer "),
        (&["nonsense"], "nonsense"),
        (&["{\"failed\":\"no space\"}"], "no space"),
        (&[ready, "{\"ready\":\"again\"}"], "again"),
    ];
    for (answers, wanted) in failures {
        let directory = tempfile::tempdir().expect("a directory");
        let program = peer(directory.path(), answers);
        let started = Peer::start(&program, &place(directory.path()));
        let error = started.and_then(|mut peer| peer.run(&JOB)).expect_err("it fails").to_string();
        assert!(error.starts_with(&format!("peer {}: ", program.display())), "{error}");
        assert!(error.contains(wanted), "{error}");
    }
}
