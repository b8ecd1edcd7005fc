//! `cargo bench -p tierce-bench --bench kernels [NAME]`: times of the smallest pieces, by
//! criterion. What an operation is stands in `tierce_bench::kernels`.

use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Instant;
use tierce_bench::kernels;

fn all(criterion: &mut Criterion) {
    for kernel in kernels::ALL {
        let mut run = kernel.prepare();
        criterion.bench_function(kernel.name, |bencher| {
            bencher.iter_custom(|times| {
                let began = Instant::now();
                run(times);
                began.elapsed()
            });
        });
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
