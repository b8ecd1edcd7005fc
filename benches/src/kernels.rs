//! The small pieces that everything else is made of, each alone and always the same: for
//! criterion, which times them, and for `cargo xtask perf-check`, which counts their
//! instructions, and so sees regressions on a machine that others use too.

use crate::backend::{Full, Lockfree, Order, SectorWrite, Space};
use std::hint::black_box;
use tierce_core::record::crc::checksum;
use tierce_core::record::{PrioSet, SetMagic};
use tierce_core::{Gen, Prio, Snapshot};

/// Something that can be done many times.
///
/// ```
/// let kernel = tierce_bench::kernels::find("word").unwrap();
/// kernel.prepare()(1000);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Kernel {
    /// How tables name it.
    pub name: &'static str,
    /// What one operation is.
    pub what: &'static str,
    /// How often it is done to be counted: enough to lose what is done once.
    pub times: u64,
    make: fn() -> Box<dyn FnMut(u64)>,
}

impl Kernel {
    /// What does it so many times.
    #[must_use]
    pub fn prepare(&self) -> Box<dyn FnMut(u64)> {
        (self.make)()
    }
}

/// All of them.
pub const ALL: [Kernel; 8] = [
    Kernel { name: "word", what: "pin and unpin as pure transitions", times: 100_000, make: word },
    Kernel {
        name: "pair",
        what: "try_alloc and give back: cell, word, counters",
        times: 20_000,
        make: pair,
    },
    Kernel {
        name: "reserve",
        what: "all buckets of the list taken, then given back, per bucket",
        times: 20_000,
        make: reserve,
    },
    Kernel {
        name: "victims",
        what: "a turn of the reclaimer with an LRU pass over 4096 buckets",
        times: 40,
        make: victims,
    },
    Kernel { name: "sectors", what: "8 sectors of an open bucket", times: 10_000, make: sectors },
    Kernel { name: "read", what: "begin_read, open, validate", times: 50_000, make: read },
    Kernel { name: "checksum", what: "CRC of 64 KiB", times: 200, make: crc },
    Kernel { name: "encode", what: "a prio set of 64 KiB", times: 50, make: encode },
];

/// The one of this name.
#[must_use]
pub fn find(name: &str) -> Option<Kernel> {
    ALL.into_iter().find(|kernel| kernel.name == name)
}

fn word() -> Box<dyn FnMut(u64)> {
    Box::new(|times| {
        let mut word = Snapshot::from_bits(0);
        for _ in 0..times {
            let pinned = black_box(word).pin(Gen::default()).expect("the gen is right");
            word = black_box(pinned).unpin(1).expect("it is pinned");
        }
        black_box(word);
    })
}

fn started(none: u32) -> Lockfree {
    let space = Lockfree::start(&Full { none, ..Full::new(4096, Order::Random) });
    space.reclaim();
    space
}

fn pair() -> Box<dyn FnMut(u64)> {
    let space = started(0);
    Box::new(move |times| {
        for _ in 0..times {
            drop(black_box(space.try_alloc()));
        }
    })
}

/// More than the cells hold, so that the shared queue has its part.
fn reserve() -> Box<dyn FnMut(u64)> {
    let space = started(1024);
    Box::new(move |times| {
        let mut left = times;
        while left > 0 {
            let taken: Vec<_> = std::iter::from_fn(|| space.try_alloc()).collect();
            left = left.saturating_sub(taken.len() as u64);
        }
    })
}

fn victims() -> Box<dyn FnMut(u64)> {
    let space = started(0);
    Box::new(move |times| {
        let mut done = 0;
        while done < times {
            let before = space.counts().invalidated;
            while let Some(bucket) = space.try_alloc() {
                space.written(bucket);
            }
            space.reclaim();
            done += u64::from(space.counts().invalidated > before);
        }
    })
}

fn sectors() -> Box<dyn FnMut(u64)> {
    let space = started(1024);
    Box::new(move |times| {
        for n in 0..times {
            let write = SectorWrite { inode: 1, offset: n * 8, write_point: 1 };
            if black_box(space.sectors(&write)).is_none() {
                space.reclaim();
            }
        }
    })
}

fn read() -> Box<dyn FnMut(u64)> {
    let space = started(0);
    let bucket = space.try_alloc().expect("it reclaimed");
    let pointer = Lockfree::pointer(&bucket).expect("it has gens");
    space.written(bucket);
    Box::new(move |times| {
        for _ in 0..times {
            assert!(space.read_hit(black_box(pointer)), "nothing is reused meanwhile");
        }
    })
}

fn crc() -> Box<dyn FnMut(u64)> {
    let bytes: Vec<u8> = (0..64u32 << 10).map(|n| (n * 31) as u8).collect();
    Box::new(move |times| {
        for _ in 0..times {
            black_box(checksum(black_box(&bytes)));
        }
    })
}

fn encode() -> Box<dyn FnMut(u64)> {
    let mut bucket = vec![0; 64 << 10];
    Box::new(move |times| {
        for seq in 0..times {
            let records = (0..u16::MAX).map(|n| (Prio::new(n), Gen::new(n as u8)));
            black_box(PrioSet::encode(&mut bucket, SetMagic(42), seq, 1, records));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_runs_and_can_be_found() {
        for kernel in ALL {
            find(kernel.name).expect("it is in the list").prepare()(3);
        }
        assert!(find("nothing").is_none());
    }
}
