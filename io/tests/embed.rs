//! The example runs, and says what it says.

#[path = "../examples/embed.rs"]
#[expect(unreachable_pub, reason = "it is a program of its own")]
mod embed;

#[test]
fn the_example_runs() {
    embed::main().expect("it ends well");
}
