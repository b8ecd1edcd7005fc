//! `tierce crash` as it is called.

use std::process::{Command, Output};

fn crash(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tierce"));
    command.arg("crash").args(args).output().expect("the command starts")
}

#[test]
fn a_clean_run_ends_with_its_count() {
    let output = crash(&["--seeds", "10"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert_eq!(text.lines().last(), Some("10 seeds clean, 0 with violations"));
    assert!(text.contains("power losses"), "{text}");
}

#[test]
fn a_lying_device_is_found_out_and_the_command_repeats_it() {
    let output = crash(&["--seeds", "20", "--mode", "lying-flush", "--operations", "200"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let command = text.lines().find_map(|line| line.split_once("again: tierce crash "));
    let (_, args) = command.expect("a command that repeats it");
    let args: Vec<_> = args.split(' ').collect();
    let again = crash(&args);
    let again_text = String::from_utf8(again.stdout).unwrap();
    assert!(again.status.success() && again_text.contains("0 seeds clean, 1 with"), "{again_text}");
}

#[test]
fn a_checker_that_sees_nothing_fails() {
    // One operation is too little to lose anything but what is still found by the last look.
    let seeds = (0..200).map(|seed: u32| seed.to_string());
    let blind =
        seeds.map(|seed| crash(&["--seed", &seed, "--mode", "lying-flush", "--operations", "1"]));
    let blind = blind.into_iter().find(|output| !output.status.success());
    let error = String::from_utf8(blind.expect("some seed loses nothing").stderr).unwrap();
    assert!(error.contains("the checker is blind"), "{error}");
}
