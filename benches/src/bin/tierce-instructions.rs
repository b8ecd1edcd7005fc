//! `tierce-instructions KERNEL TIMES`: does it so many times and nothing else, for whoever counts
//! instructions (`cargo xtask perf-check`). Without arguments it lists the kernels, one per line:
//! name, how often to do it, what it is.

use std::process::ExitCode;
use tierce_bench::kernels;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = arguments.first() else {
        for kernel in kernels::ALL {
            println!("{}\t{}\t{}", kernel.name, kernel.times, kernel.what);
        }
        return ExitCode::SUCCESS;
    };
    let times = arguments.get(1).and_then(|times| times.parse().ok());
    let (Some(kernel), Some(times)) = (kernels::find(name), times) else {
        eprintln!("found {arguments:?}, wanted the name of a kernel and how often");
        return ExitCode::FAILURE;
    };
    kernel.prepare()(times);
    ExitCode::SUCCESS
}
