//! Invariants: any text is answered or refused with the number of the line that is wrong; the
//! specification's own invariants hold after each line (`new` without `check=0`); a line that
//! fails prints nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tierce_core::Error;
use tierce_core::spec::{Set, sim};

/// Long enough for every script of the corpus.
const LINES_MAX: usize = 200;

fuzz_target!(|script: &str| {
    let mut runner = sim::Runner::<Set>::new(sim::Limits::SMALL);
    let mut out = String::new();
    for (at, line) in script.lines().take(LINES_MAX).enumerate() {
        let before = out.len();
        if let Err(e) = runner.line(line, &mut out) {
            assert!(matches!(e, Error::Script { line, .. } if line == at + 1), "{e}");
            assert_eq!(out.len(), before, "a line that fails prints nothing");
            break;
        }
    }
});
