//! Counting tests from what the test runners print.
//!
//! The two runners are read by two functions: nextest repeats the output of a failed test,
//! libtest's own `test result` line included, so a reader that took whichever line it finds
//! would count a failure twice.

use std::collections::BTreeSet;

/// What a run of tests came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed, timed out or could not be started.
    pub(crate) failed: u64,
    /// Tests that were left out: ignored or filtered.
    pub(crate) left_out: u64,
    /// The test binaries of which at least one test ran: `package` or `package::target` by
    /// nextest, `target` alone by cargo test.
    pub(crate) binaries: BTreeSet<String>,
}

/// Reads the output of `cargo nextest run`: its last `Summary` line and the lines of tests.
///
/// ```text
///         PASS [   0.005s] (3/4) tierce-core::records torn_entry
///      Summary [   0.088s] 4 tests run: 3 passed (1 slow), 1 failed, 1 skipped
/// ```
pub(crate) fn nextest(text: &str) -> Tally {
    let mut tally = Tally::default();
    let summary = text.lines().rev().find_map(|line| status_line(line, "Summary"));
    if let Some((_, counts)) = summary.and_then(|rest| rest.split_once(':')) {
        let counts = without_brackets(counts);
        for (count, word) in counts.split(',').filter_map(count_and_word) {
            match word {
                "passed" => tally.passed += count,
                "skipped" => tally.left_out += count,
                _ => tally.failed += count, // failed, timed out, exec failed
            }
        }
    }
    let ran = ["PASS", "FAIL", "SLOW", "TIMEOUT", "FLAKY", "LEAK"];
    for line in text.lines() {
        let Some(rest) = ran.iter().find_map(|word| status_line(line, word)) else { continue };
        let rest = rest.split_once(')').map_or(rest, |(_, test)| test);
        if let Some(binary) = rest.split_whitespace().next() {
            tally.binaries.insert(binary.to_owned());
        }
    }
    tally
}

/// What follows `WORD [  0.005s] `.
fn status_line<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let rest = line.trim_start().strip_prefix(word)?.trim_start().strip_prefix('[')?;
    let (seconds, rest) = rest.split_once(']')?;
    let seconds = seconds.trim().trim_start_matches('>').strip_suffix('s')?;
    seconds.parse::<f64>().is_ok().then(|| rest.trim_start())
}

/// Reads the output of `cargo test`: the sum of all `test result` lines.
///
/// ```text
///      Running tests/records.rs (target/debug/deps/records-0123456789abcdef)
/// test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s
/// ```
pub(crate) fn cargo_test(text: &str) -> Tally {
    let mut tally = Tally::default();
    let mut binary = None;
    for line in text.lines() {
        if let Some(running) = line.trim_start().strip_prefix("Running ") {
            binary = running.split_once(" (").map(|(path, _)| stem(path).to_owned());
        }
        let Some(counts) = line.strip_prefix("test result: ") else { continue };
        let counts = counts.split_once(". ").map_or(counts, |(_, counts)| counts);
        let mut ran = 0;
        for (count, word) in counts.split(';').filter_map(count_and_word) {
            match word {
                "passed" => tally.passed += count,
                "failed" => tally.failed += count,
                "ignored" | "filtered" => tally.left_out += count,
                _ => continue,
            }
            ran += if matches!(word, "passed" | "failed") { count } else { 0 };
        }
        tally.binaries.extend(binary.take().filter(|_| ran > 0));
    }
    tally
}

/// `tests/records.rs` → `records`.
fn stem(path: &str) -> &str {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    name.strip_suffix(".rs").unwrap_or(name)
}

/// `3 passed (1 slow, 1 flaky), 1 failed` → `3 passed , 1 failed`: what is in brackets says how,
/// not how many.
fn without_brackets(text: &str) -> String {
    let pieces = text.split('(').enumerate();
    pieces.map(|(i, piece)| if i == 0 { piece } else { after(piece, ')') }).collect()
}

/// What follows the first `mark`.
fn after(text: &str, mark: char) -> &str {
    text.split_once(mark).map_or("", |(_, rest)| rest)
}

/// `3 passed` → 3 and `passed`.
fn count_and_word(text: &str) -> Option<(u64, &str)> {
    let mut words = text.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?))
}

/// The numbers before ` unit` in lines that contain `marker`.
///
/// ```text
/// model racy_take: 1234 iterations
/// Done 98765 runs in 11 second(s)
/// ```
pub(crate) fn numbers_before(
    text: &str,
    marker: &str,
    unit: &str,
) -> impl DoubleEndedIterator<Item = u64> {
    let number = move |line: &str| {
        let (before, _) = line.split_once(&format!(" {unit}"))?;
        before.rsplit(' ').next()?.parse::<u64>().ok()
    };
    text.lines().filter(move |line| line.contains(marker)).filter_map(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXTEST: &str = "
    Finished `test` profile [unoptimized + debuginfo] target(s) in 0.01s
    Starting 4 tests across 3 binaries (1 test skipped)
        PASS [   0.005s] (1/4) core good
        SLOW [> 60.000s] (───) core::stress t
        PASS [  61.005s] (3/4) core::stress t
        FAIL [   0.087s] (4/4) core bad
  stdout ───

    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished

────────────
     Summary [   0.088s] 4 tests run: 3 passed (1 slow), 1 failed, 1 skipped
        FAIL [   0.087s] (4/4) core bad
error: test run failed
";

    fn names(tally: &Tally) -> Vec<&str> {
        tally.binaries.iter().map(String::as_str).collect()
    }

    #[test]
    fn nextest_counts_come_from_its_summary() {
        let tally = nextest(NEXTEST);
        assert_eq!((tally.passed, tally.failed, tally.left_out), (3, 1, 1));
        assert_eq!(names(&tally), ["core", "core::stress"]);
    }

    #[test]
    fn nextest_counts_what_is_neither_passed_nor_skipped_as_failed() {
        let text = "     Summary [  12.088s] 3/5 tests run: 1 passed, 1 timed out, 1 exec failed";
        let tally = nextest(text);
        assert_eq!((tally.passed, tally.failed), (1, 2));
        let text = "     Summary [   1.0s] 5 tests run: 4 passed (1 slow, 1 flaky), 1 failed";
        let tally = nextest(text);
        assert_eq!((tally.passed, tally.failed), (4, 1));
    }

    #[test]
    fn nextest_without_tests_counts_zero() {
        let text = "    Starting 0 tests across 1 binary
     Summary [   0.000s] 0 tests run: 0 passed, 0 skipped
error: no tests to run";
        assert_eq!(nextest(text), Tally::default());
        assert_eq!(nextest("error: could not compile `x`"), Tally::default());
    }

    #[test]
    fn cargo_test_sums_its_binaries() {
        let text = "
     Running unittests src/lib.rs (target/debug/deps/nxt-670f7f3355c9f225)
test good ... ok
test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.07s
     Running tests/empty.rs (target/debug/deps/empty-37346b697d7cdf0d)
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s
     Running tests/stress.rs (target/debug/deps/stress-6add3391d3bcc8b3)
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
   Doc-tests nxt
test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        let tally = cargo_test(text);
        assert_eq!((tally.passed, tally.failed, tally.left_out), (7, 1, 8));
        assert_eq!(names(&tally), ["lib", "stress"], "empty ran nothing");
    }

    #[test]
    fn numbers_are_read_from_marked_lines() {
        let text = "model a: 12 iterations\nsomething else: 5 iterations\n model b: 3 iterations";
        assert!(numbers_before(text, "model ", "iterations").eq([12, 3]));
        assert!(numbers_before("Done 98765 runs in 11 second(s)", "Done ", "runs").eq([98765]));
        assert_eq!(numbers_before("Done", "Done", "runs").count(), 0);
    }
}
