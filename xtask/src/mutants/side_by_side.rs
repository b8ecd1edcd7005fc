//! Doing the same with many things, several at a time.

use anyhow::Result;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What `each` gives for every one of `items`, in their order, worked out on `threads` threads.
/// After an error those that are under way are finished and no more are begun.
pub(crate) fn side_by_side<'a, T: Sync, R: Send>(
    items: &'a [T],
    threads: usize,
    each: impl Fn(&'a T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            // Relaxed: who gets which is all that is decided.
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return Ok(done) };
            match each(item) {
                Ok(result) => done.push((at, result)),
                Err(error) => {
                    // Relaxed: as above; nothing is left for anybody.
                    next.fetch_max(items.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    let mut all = thread::scope(|scope| {
        let running: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for thread in running {
            all.extend(thread.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok::<_, anyhow::Error>(all)
    })?;
    all.sort_unstable_by_key(|&(at, _)| at);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::ensure;

    #[test]
    fn results_are_in_order_whoever_made_them() {
        let items = (0..100).collect::<Vec<_>>();
        for threads in [0, 1, 3] {
            let doubled = side_by_side(&items, threads, |item| Ok(item * 2)).unwrap();
            assert!(doubled.into_iter().eq((0..100).map(|item| item * 2)), "{threads} threads");
        }
    }

    #[test]
    fn an_error_ends_it() {
        let begun = AtomicUsize::new(0);
        let result = side_by_side(&[0; 100], 1, |_| {
            // Relaxed: counted on one thread.
            ensure!(begun.fetch_add(1, Ordering::Relaxed) < 3, "the fourth");
            Ok(())
        });
        assert_eq!(result.unwrap_err().to_string(), "the fourth");
        assert_eq!(begun.into_inner(), 4);
    }
}
