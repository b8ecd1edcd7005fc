//! Errors of the language of `tierce sim`.
//!
//! 1. Every `key=` of every operation refuses what is no value of it, naming line, operation,
//!    key and what was found.
//! 2. Every operation refuses keys and words that it does not have.
//! 3. What the allocator refuses comes back with the line in front.
//! 4. What is refused prints nothing and changes nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use tierce_core::spec::{Set, sim};

const NEW: &str = "new nbuckets=16 bucket_sectors=64 r_none=2 r_inc=4";

/// Runs `line` behind `before` and returns its error.
fn error(before: &[&str], line: &str) -> String {
    let mut runner = sim::Runner::<Set>::new(sim::Limits::default());
    let mut out = String::new();
    for line in before {
        runner.line(line, &mut out).unwrap();
    }
    let shown = format!("{runner:?}");
    let printed = out.clone();
    let error = runner.line(line, &mut out).unwrap_err().to_string();
    assert_eq!(out, printed, "what is refused prints nothing");
    let number = format!("lines: {}", before.len());
    let next = format!("lines: {}", before.len() + 1);
    assert_eq!(format!("{runner:?}"), shown.replace(&number, &next), "{line} changed something");
    error
}

/// Each operation with what it cannot do without, and its other keys.
const KEYS: [(&str, &str); 15] = [
    ("alloc", "reserve n dev"),
    ("alloc_set", "reserve n"),
    (
        "alloc_sectors inode=1 offset=0 sectors=8",
        "inode offset sectors write_point write_prio flash_only",
    ),
    ("uuid inode=1 flash_only=1", "inode flash_only"),
    (
        "set 3",
        "prio gen last_gc mark sectors pin move durable min_prio rescale fifo_next need_gc needs_gc \
         seed dev",
    ),
    ("gc", "keep"),
    ("rescale sectors=1", "sectors"),
    ("invalidate", "dev"),
    ("clear_inc", "dev"),
    ("prio_write", "dev"),
    ("moving", "dev"),
    ("policy lru", "dev"),
    ("fail", "dev"),
    (
        "new nbuckets=16 bucket_sectors=64 r_none=2 r_inc=4",
        "nbuckets first_bucket bucket_sectors block_sectors sync discard ndev seed check gc recycle \
         slots njournal policy",
    ),
    (
        "new nbuckets=16 bucket_sectors=64 r_none=2 r_inc=4",
        "r_btree r_prio r_movinggc r_none r_inc heap",
    ),
];

#[test]
fn every_key_refuses_what_is_no_value_of_it() {
    for (op, keys) in KEYS {
        for key in keys.split(' ') {
            let mut words: Vec<_> =
                op.split(' ').filter(|word| !word.starts_with(&format!("{key}="))).collect();
            let bad = format!("{key}=x");
            words.push(&bad);
            let line = words.join(" ");
            let text = error(&[NEW], &line);
            let op = words[0];
            let wanted = format!("line 2: {op} {key}: found x, wanted ");
            assert!(text.starts_with(&wanted), "{line}: {text}");
        }
    }
}

#[test]
fn every_operation_refuses_what_it_does_not_have() {
    for op in [
        "start",
        "step",
        "stats",
        "lists",
        "open",
        "prio_block",
        "prio_unblock",
        "gc_start",
        "gc_finish",
        "gc_abandon",
        "crash",
        "alloc",
        "alloc_set",
        "alloc_sectors",
        "uuid",
        "rescale",
        "invalidate",
        "clear_inc",
        "prio_write",
        "moving",
        "fail",
        "new",
    ] {
        let text = error(&[NEW], &format!("{op} word"));
        assert!(text.starts_with(&format!("line 2: {op}: found word, wanted ")), "{text}");
    }
    for op in [
        "start",
        "alloc",
        "uuid",
        "free 3",
        "put 3",
        "get 3",
        "touch 3",
        "inc_gen 3",
        "dirty 3",
        "give_back 3",
        "unused 3",
        "set 3",
        "gc 3:1",
        "gc_mark 3:1",
        "observe 3:1@0",
        "rescale",
        "moving",
        "policy lru",
        "fail",
        "dump 3",
        "new",
    ] {
        let name = op.split(' ').next().unwrap();
        let text = error(&[NEW], &format!("{op} colour=1"));
        assert!(text.starts_with(&format!("line 2: {name}: found colour=, wanted ")), "{text}");
    }
}

/// What the settings and the state forbid.
#[test]
fn refusals_of_the_allocator_name_the_line() {
    let two = "new nbuckets=16 bucket_sectors=64 r_none=2 r_inc=4 ndev=2";
    for (before, line, wanted) in [
        (&[][..], "dump 1", "line 1: dump: found no set, wanted `new` before it"),
        (
            &[NEW],
            "bogus",
            "line 2: bogus: found bogus, wanted an operation, such as new, start, step, alloc",
        ),
        (
            &[],
            "new nbuckets=16 bucket_sectors=64 gc=both",
            "line 1: new gc: found both, wanted in_place or shadow",
        ),
        (
            &[],
            "new nbuckets=16 bucket_sectors=64",
            "line 1: new sizes.none: found 0, wanted 1 to 16",
        ),
        (
            &[],
            "new nbuckets=33554432 ndev=2 bucket_sectors=64",
            "line 1: new nbuckets: found 67108864, wanted at most 33554432 in all",
        ),
        (
            &[],
            "new nbuckets=16 bucket_sectors=64 first_bucket=16",
            "line 1: new first_bucket: found 16, wanted 1 to 15",
        ),
        (
            &[],
            "new nbuckets=16 bucket_sectors=64 slots=4097",
            "line 1: new slots: found 4097, wanted a number from 1 to 4096",
        ),
        (&[two], "free 3", "line 2: free: found 3, wanted device:bucket"),
        (&[two], "free 2:3", "line 2: free device: found 2, wanted a number from 0 to 1"),
        (&[two], "gc 0:3", "line 2: gc: found 0:3, wanted D:B:S[:clean|dirty|meta][@G]"),
        (&[two], "dump 0:3-1:4", "line 2: dump bucket: found 1:4, wanted a number from 0 to 15"),
        (&[NEW], "gc 3:1@256", "line 2: gc gen: found 256, wanted a number from 0 to 255"),
        (&[NEW], "gc 16:1", "line 2: gc bucket: found 16, wanted a number from 0 to 15"),
        (&[NEW], "gc 3:x", "line 2: gc sectors: found x, wanted a number from 0 to 4294967295"),
        (&[NEW], "set x-3", "line 2: set bucket: found x, wanted a number from 0 to 15"),
        (&[NEW], "set 3-x", "line 2: set bucket: found x, wanted a number from 0 to 15"),
        (
            &[NEW],
            "set rescale=1.5",
            "line 2: set rescale: found 1.5, wanted a whole number of 64 bits",
        ),
        (&[NEW], "policy", "line 2: policy: found , wanted lru, fifo or random"),
        (&[NEW], "uuid inode=1", "line 2: uuid: found no flash_only=, wanted flash_only=0..1"),
        (
            &[NEW],
            "put 3",
            "line 2: put (unpinning bucket 0:3): found Out with pin 0, wanted a pin to return",
        ),
        (
            &[NEW],
            "dirty 3",
            "line 2: dirty (marking bucket 0:3 dirty): found Out with pin 0, wanted held, with a pin",
        ),
        (
            &[NEW],
            "get 0",
            "line 2: get (pinning bucket 0:0): found 0, wanted fewer pins, on a bucket that can be allocated",
        ),
        (
            &[NEW, "start"],
            "inc_gen 1",
            "line 3: inc_gen (advancing the gen of bucket 0:1): found Free(Prio), wanted with an owner",
        ),
        (
            &[NEW, "start", "step"],
            "set 6 pin=0",
            "line 4: set (storing the state of bucket 0:6): found pin 0, wanted pin 1 or more on a list or open",
        ),
        (&[NEW], "gc_finish", "line 2: gc_finish: found no running GC, wanted gc_begin first"),
        (&[NEW], "gc_abandon", "line 2: gc_abandon: found no running GC, wanted gc_begin first"),
        (&[NEW], "gc_mark 3:1", "line 2: gc_mark: found no running GC, wanted gc_begin first"),
        (
            &[NEW],
            "observe 3:1@0",
            "line 2: observe: found no start-up, wanted between open and start",
        ),
        (
            &[NEW, "gc_start"],
            "gc_start",
            "line 3: gc_start (gc_begin): found a running GC, wanted none, or gc_abandon first",
        ),
        (
            &[NEW, "gc_start"],
            "gc 3:1",
            "line 3: gc (gc_begin): found a running GC, wanted none, or gc_abandon first",
        ),
        (
            &[NEW, "gc_start"],
            "moving",
            "line 3: moving (moving_candidates): found marks invalid, wanted a finished GC",
        ),
        (
            &[NEW, "crash", "gc_abandon"],
            "start",
            "line 4: start: found marks invalid, wanted marks of a complete walk",
        ),
    ] {
        assert_eq!(error(before, line), wanted);
    }
}

/// `check=0` is for speed: what is printed is the same.
#[test]
fn checking_prints_nothing() {
    let script = format!("{NEW}\nstart\nstep\nalloc n=9\nlists\nstats\n");
    let unchecked = script.replacen(NEW, &format!("{NEW} check=0"), 1);
    let run = |script: &str| sim::run::<Set>(script, sim::Limits::default()).unwrap();
    assert_eq!(run(&script).lines().count(), 6);
    assert_eq!(run(&script), run(&unchecked));
}

/// `free` names its buckets one by one; those before the one that is refused are done.
#[test]
fn a_list_of_buckets_stops_at_the_first_refused() {
    let mut runner = sim::Runner::<Set>::new(sim::Limits::default());
    let mut out = String::new();
    for line in [NEW, "start", "step"] {
        runner.line(line, &mut out).unwrap();
    }
    out.clear();
    let text = runner.line("free 15 1", &mut out).unwrap_err().to_string();
    let wanted = "line 4: free (freeing bucket 0:1): found in the prio chain, \
                  wanted not in the prio chain";
    assert_eq!((text.as_str(), out.as_str()), (wanted, ""));
}
