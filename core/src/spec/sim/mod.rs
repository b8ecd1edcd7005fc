//! A small language of allocator operations, and its runner: what `tierce sim` speaks.
//!
//! One operation per line, `#` starts a comment, arguments are `key=value` or bare words. Each
//! operation prints one line (`dump` one per bucket, `lists` one per device), so that two
//! allocators, or two versions of one, can be compared with `diff`. Everything is sequential:
//! background work happens only inside `step`, until it can do nothing more.
//!
//! With one device a bucket is written `B`, with several `D:B`; a range is `B-B` or `D:B-B`.
//!
//! # Operations
//!
//! | operation | prints | what it does |
//! |---|---|---|
//! | `new nbuckets= bucket_sectors= …` | `new nbuckets= ndev= prio_buckets= r_…= heap=` | a fresh set: all gens and prios 0, nothing marked, nothing free |
//! | `start` | `start [events] avail=` | start-up: counts, fills prio and btree |
//! | `step` | `step [events] wait=W` | background work, device after device; W: push, gc, prio_blocked, prio_alloc, failed |
//! | `alloc reserve= n= dev=` | `alloc B@gen … [fail] avail=` | single allocations until one fails |
//! | `alloc_set reserve= n=` | `alloc_set ok B@gen … avail=` or `fail` | one bucket from each of n devices |
//! | `alloc_sectors inode= offset= sectors= write_point= write_prio= flash_only=` | `alloc_sectors ok b= off= gen= pin= size= end=` or `fail` | sectors of an open bucket |
//! | `uuid inode= flash_only=` | itself | the class of an inode's data |
//! | `free B…` | `B:avail=` | the content is dead |
//! | `put B…`, `get B…` | `B:pin=` | one pin fewer, more |
//! | `touch B…` | `B:prio=` | a read hit |
//! | `inc_gen B…` | `B:gen=:need_gc=`, or `B:must_gc` | an index node is freed |
//! | `set B… prio= gen= last_gc= mark= sectors= pin= move= durable=`, `set min_prio= rescale= fifo_next= need_gc= needs_gc= seed= dev=` | `set N` | direct stores; a stored gen counts as durable |
//! | `gc [keep=1] B:S[:clean\|dirty\|meta][@G]…` | `gc need_gc= avail= in_use=` | a garbage collection that finds these keys; `keep=1`: and what was marked and not pinned before |
//! | `gc_start`, `gc_mark …`, `gc_finish` | `gc_start gc_mark_valid=`, `gc_mark N stale=`, `gc_finish need_gc= avail= in_use=` | the same in parts |
//! | `rescale sectors=` | `rescale fired= counter= min_prio=` | accounts for I/O |
//! | `invalidate dev=` | `invalidate [events] needs_gc= need_gc=` or `refused needs_gc= gc_mark_valid=` | one pass |
//! | `clear_inc dev=` | `clear_inc N` | empties free_inc, unpins, keeps the gens |
//! | `prio_write dev=` | `prio_write [events]`, or `would_block`, `prio_blocked`, `no_sync`, `failed` | writes the table |
//! | `prio_block`, `prio_unblock` | the count | holds prio writes back |
//! | `dump B…`, `stats`, `lists`, `open` | state | `open`: least recently used first; free=0 is closed |
//! | `echo …` | itself | |
//!
//! Further ones, for what a single original allocator cannot show:
//!
//! | operation | prints | what it does |
//! |---|---|---|
//! | `gc_abandon` | `gc_abandon gc_mark_valid=` | ends a garbage collection without a result |
//! | `moving dev=` | `moving [B …]` | chooses and flags what moving GC moves |
//! | `dirty B…` | `B:mark=` | marks dirty |
//! | `give_back B…` | `B:avail=` | returns buckets that were never written |
//! | `unused B…` | `unused [events] B:released` or `B:refused` | the short way to the free lists |
//! | `crash` | `crash gc_mark_valid=` | power loss: only durable gens are left; then `observe` and `start` |
//! | `observe B:S[:kind]@G…` | `observe N stale=` | keys found at start-up |
//! | `policy lru\|fifo\|random dev=` | itself | another policy |
//! | `fail dev=` | itself | takes a device out |
//!
//! # Settings of `new`
//!
//! `nbuckets=` (per device) and `bucket_sectors=` are required. `first_bucket=1`,
//! `block_sectors=8`, `policy=lru`, `sync=1`, `discard=0`, `ndev=1`, `seed=0`, `check=1` (the
//! invariants are checked after every line), `gc=in_place` (or `shadow`), `recycle=0` (or 1: the
//! old prio chain refills the prio reserve), `slots=128`, `njournal=0`. Sizes not given are the
//! original's ([`Sizes::bcache`](crate::Sizes::bcache)); `heap` is twice `r_inc` if that is given.
//!
//! ```
//! use tierce_core::spec::{Set, sim};
//! let script = "
//!     new nbuckets=16 bucket_sectors=64 policy=fifo sync=0 r_none=2 r_inc=2 r_btree=1 r_movinggc=0
//!     start
//!     step
//!     alloc n=1        # the first of the two
//! ";
//! let out = sim::run::<Set>(script, sim::Limits::default())?;
//! assert!(out.ends_with("alloc 3@1 avail=14\n"), "{out}");
//!
//! let e = sim::run::<Set>("new nbuckets=x bucket_sectors=64", sim::Limits::default());
//! let wanted = "line 1: new nbuckets: found x, wanted a number from 8 to 33554432";
//! assert_eq!(e.unwrap_err().to_string(), wanted);
//! # Ok::<(), tierce_core::Error>(())
//! ```

mod engine;
mod ops;
mod parse;
mod print;
mod runner;

pub use engine::Engine;
pub use runner::{Limits, Runner, run};
