//! Memory for direct I/O: aligned, owned by one operation at a time, pre-registered if possible.
//!
//! # Problem
//!
//! Direct I/O wants aligned memory, and the kernel may write into it until the operation is
//! completed, whatever the program does meanwhile. Memory that was registered with a ring once
//! also saves pinning its pages for every operation.
//!
//! # State
//!
//! A [`Buffer`] owns its memory. [`Device::submit`](crate::Device::submit) takes it and the
//! operation's result gives it back; nobody can reach it in between, not even by dropping the
//! [`Completion`](crate::Completion).
//!
//! A [`Pool`] is one arena, cut into chunks of equal size. A prefix of the arena may be
//! registered with a ring ([`Buffer::is_registered`]). Buffers longer than a chunk come from the
//! heap; a few of them, which are not too long, are kept for the next one, as to get and to clear
//! such memory takes as long as to copy it.
//!
//! # Invariants
//!
//! 1. A chunk's number is in the free queue, or exactly one `Buffer` holds it.
//! 2. The arena lives as long as any buffer from it: each holds the pool.
//! 3. All memory handed out is initialised: it is zeroed when it is allocated, or comes so from the
//!    system.
//!
//! # Progress
//!
//! Taking and returning memory go through crossbeam's `ArrayQueue`, which can wait for a peer
//! that was preempted inside it. An empty pool does not wait: the heap serves.

use crossbeam_queue::ArrayQueue;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ffi::c_void;
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tierce_lockfree::huge_pages::{self, HUGE_PAGE};

/// No ring has registered anything of a pool.
const UNREGISTERED: usize = usize::MAX;
/// The most memory that a pool has.
const ARENA_BYTES_MAX: usize = 1 << 36;

/// Alignment of every buffer: a page, and the largest logical block there is.
pub const ALIGNMENT: usize = 4096;

/// How many buffers that are longer than a chunk a pool keeps, at most, …
const SPARE: usize = 16;

/// … if they are not longer than this.
const SPARE_BYTES_MAX: usize = 512 << 10;

/// An aligned piece of memory, freed when dropped.
struct Aligned {
    start: NonNull<u8>,
    capacity: usize,
    from: Origin,
}

/// Who gets it back.
enum Origin {
    Heap,
    /// A mapping of so many bytes, with the memory somewhere in it.
    System(NonNull<c_void>, usize),
}

// SAFETY: `Aligned` owns its memory exclusively, as a `Box<[u8]>` does.
unsafe impl Send for Aligned {}
// SAFETY: as a `Box<[u8]>`: shared references only read.
unsafe impl Sync for Aligned {}

impl Aligned {
    fn layout(capacity: usize) -> Layout {
        let alignment = if capacity < HUGE_PAGE { ALIGNMENT } else { HUGE_PAGE };
        Layout::from_size_align(capacity, alignment).expect("a buffer is far below isize::MAX")
    }

    /// At least `bytes`, rounded up to the alignment, zeroed.
    fn new(bytes: usize) -> Self {
        let capacity = bytes.max(1).next_multiple_of(ALIGNMENT);
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is at least `ALIGNMENT`, so not zero.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        // SAFETY: these are the bytes that were just allocated, nobody else's, and need no value.
        let bytes: &mut [MaybeUninit<u8>] =
            unsafe { std::slice::from_raw_parts_mut(start.as_ptr().cast(), capacity) };
        huge_pages::ask_for(bytes);
        bytes.fill(MaybeUninit::new(0));
        Self { start, capacity, from: Origin::Heap }
    }

    /// The same, but the system provides and clears each page when it is used first.
    fn untouched(bytes: usize) -> Self {
        let capacity = bytes.max(1).next_multiple_of(ALIGNMENT);
        let layout = Self::layout(capacity);
        // Larger by the alignment; what is not used of it takes no memory.
        let bytes = capacity + layout.align();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a place where nothing is.
        let mapped =
            unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, access, MapFlags::PRIVATE) };
        let mapped = mapped.ok().and_then(NonNull::new);
        let Some(mapping) = mapped else { handle_alloc_error(layout) };
        let skipped = mapping.as_ptr().cast::<u8>().align_offset(layout.align());
        assert!(skipped < layout.align(), "addresses of bytes can be aligned");
        // SAFETY: the mapping is longer than that, by the assertion.
        let start = unsafe { mapping.cast::<u8>().add(skipped) };
        // SAFETY: `capacity` bytes of the mapping are left there, nobody else's; they need no
        // value.
        let memory: &mut [MaybeUninit<u8>] =
            unsafe { std::slice::from_raw_parts_mut(start.as_ptr().cast(), capacity) };
        huge_pages::ask_for(memory);
        Self { start, capacity, from: Origin::System(mapping, bytes) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        match self.from {
            // SAFETY: `start` came from `alloc` with this very layout.
            Origin::Heap => unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) },
            Origin::System(mapping, bytes) => {
                // SAFETY: this is the whole mapping, which nobody refers to any more.
                let unmapped = unsafe { munmap(mapping.as_ptr(), bytes) };
                debug_assert!(unmapped.is_ok(), "there was such a mapping: {unmapped:?}");
            }
        }
    }
}

/// Buffers of one size, cut from one arena.
///
/// ```
/// use tierce_io::Pool;
/// let pool = Pool::new(64 << 10, 2);
/// let a = pool.buffer(4096);
/// let b = pool.buffer(4096);
/// let c = pool.buffer(4096); // the pool is empty: from the heap
/// assert_eq!(pool.free(), 0);
/// drop((a, b, c));
/// assert_eq!(pool.free(), 2);
/// ```
pub struct Pool {
    arena: Aligned,
    chunk_bytes: usize,
    free: ArrayQueue<u32>,
    /// Longer than a chunk.
    spare: ArrayQueue<Aligned>,
    /// Of the arena, by every ring that uses the pool; [`UNREGISTERED`]: by none.
    registered_bytes: AtomicUsize,
}

impl Pool {
    /// Bytes of a chunk, which is so long at least, and of so many chunks; `None` if that is more than
    /// 64 GiB in all.
    pub(crate) fn sizes(chunk_bytes: usize, chunks: u32) -> Option<(usize, usize)> {
        let chunk_bytes = chunk_bytes.max(1).checked_next_multiple_of(ALIGNMENT)?;
        let bytes = chunk_bytes.checked_mul(chunks.max(1) as usize)?;
        (bytes <= ARENA_BYTES_MAX).then_some((chunk_bytes, bytes))
    }

    /// `chunks` buffers of `chunk_bytes` bytes each, the latter rounded up to [`ALIGNMENT`].
    ///
    /// # Panics
    ///
    /// If that is more than 64 GiB in all.
    #[must_use]
    pub fn new(chunk_bytes: usize, chunks: u32) -> Arc<Self> {
        Self::in_arena(chunk_bytes, chunks, Aligned::new)
    }

    /// The same, for who begins with few of them: the memory of the others is provided when they
    /// are used. Not to be registered: of memory that is not there the kernel has to make sure
    /// then, which can take it many milliseconds.
    pub(crate) fn untouched(chunk_bytes: usize, chunks: u32) -> Arc<Self> {
        Self::in_arena(chunk_bytes, chunks, Aligned::untouched)
    }

    fn in_arena(
        chunk_bytes: usize,
        chunks: u32,
        arena: impl FnOnce(usize) -> Aligned,
    ) -> Arc<Self> {
        let (chunk_bytes, bytes) = Self::sizes(chunk_bytes, chunks).expect("at most 64 GiB");
        let chunks = chunks.max(1);
        let free = ArrayQueue::new(chunks as usize);
        for chunk in 0..chunks {
            free.push(chunk).expect("the queue has a place for every chunk");
        }
        let arena = arena(bytes);
        Arc::new(Self {
            arena,
            chunk_bytes,
            free,
            spare: ArrayQueue::new(SPARE),
            registered_bytes: AtomicUsize::new(UNREGISTERED),
        })
    }

    /// A buffer of `bytes` bytes: a chunk of the pool if one is free and large enough, else
    /// from the heap. What it holds is unspecified.
    #[must_use]
    pub fn buffer(self: &Arc<Self>, bytes: usize) -> Buffer {
        if bytes > self.chunk_bytes {
            return self.long(bytes);
        }
        match self.free.pop() {
            Some(chunk) => {
                Buffer { memory: Memory::Pooled { pool: self.clone(), chunk }, len: bytes }
            }
            None => Buffer::new(bytes),
        }
    }

    fn long(self: &Arc<Self>, bytes: usize) -> Buffer {
        if bytes > SPARE_BYTES_MAX {
            return Buffer::new(bytes);
        }
        // One that is too short makes room for the one that is made instead.
        let spare = self.spare.pop().filter(|spare| spare.capacity >= bytes);
        let memory = spare.unwrap_or_else(|| Aligned::new(bytes));
        Buffer { memory: Memory::Spare { pool: self.clone(), memory }, len: bytes }
    }

    /// Chunks that are free at the moment; a hint when others use the pool.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Start and length of the arena, for registering it.
    pub(crate) fn arena(&self) -> (NonNull<u8>, usize) {
        (self.arena.start, self.arena.capacity)
    }

    /// Bytes of a chunk.
    pub(crate) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Notes that the first `bytes` of the arena are registered with one more ring: what is not with
    /// all of them counts as not registered. Before the first use.
    pub(crate) fn set_registered(&self, bytes: usize) {
        // Relaxed: the ring is reported to who opens the device after this, and used after that.
        self.registered_bytes.fetch_min(bytes, Ordering::Relaxed);
    }

    /// Bytes of the arena that are registered.
    fn registered(&self) -> usize {
        // Relaxed: as above.
        match self.registered_bytes.load(Ordering::Relaxed) {
            UNREGISTERED => 0,
            bytes => bytes,
        }
    }

    fn chunk_start(&self, chunk: u32) -> NonNull<u8> {
        let offset = chunk as usize * self.chunk_bytes;
        assert!(offset + self.chunk_bytes <= self.arena.capacity, "a chunk lies in the arena");
        // SAFETY: the offset is within the arena's allocation, by the assertion above.
        unsafe { self.arena.start.add(offset) }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("chunk_bytes", &self.chunk_bytes)
            .field("chunks", &self.free.capacity())
            .field("free", &self.free.len())
            .field("registered_bytes", &self.registered())
            .finish_non_exhaustive()
    }
}

enum Memory {
    Empty,
    Heap(Aligned),
    Pooled {
        pool: Arc<Pool>,
        chunk: u32,
    },
    /// From the heap, to be kept.
    Spare {
        pool: Arc<Pool>,
        memory: Aligned,
    },
}

/// Bytes for one operation, aligned to [`ALIGNMENT`].
///
/// ```
/// use tierce_io::Buffer;
/// let mut buffer = Buffer::new(8192);
/// buffer[..5].copy_from_slice(b"bytes");
/// buffer.truncate(4096);
/// assert_eq!((buffer.len(), &buffer[..5]), (4096, &b"bytes"[..]));
/// ```
pub struct Buffer {
    memory: Memory,
    len: usize,
}

impl Buffer {
    /// `bytes` zeroed bytes from the heap.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { memory: Memory::Heap(Aligned::new(bytes)), len: bytes }
    }

    /// No bytes and no memory: what a flush or a discard gives back.
    #[must_use]
    pub const fn empty() -> Self {
        Self { memory: Memory::Empty, len: 0 }
    }

    /// Shortens it to `bytes`; the operation transfers only these. A larger number changes
    /// nothing.
    pub fn truncate(&mut self, bytes: usize) {
        self.len = self.len.min(bytes);
    }

    /// Whether its memory is registered with the ring of the device it came from.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        let Memory::Pooled { pool, chunk } = &self.memory else { return false };
        let end = (*chunk as usize + 1) * pool.chunk_bytes;
        end <= pool.registered()
    }

    /// Whether it is registered with `pool`, and not with somebody else's ring.
    pub(crate) fn is_registered_in(&self, pool: &Arc<Pool>) -> bool {
        matches!(&self.memory, Memory::Pooled { pool: own, .. } if Arc::ptr_eq(own, pool))
            && self.is_registered()
    }

    /// Where its memory starts. It stays there when the buffer is moved.
    pub(crate) fn start(&self) -> NonNull<u8> {
        match &self.memory {
            Memory::Empty => NonNull::dangling(),
            Memory::Heap(memory) | Memory::Spare { memory, .. } => memory.start,
            Memory::Pooled { pool, chunk } => pool.chunk_start(*chunk),
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` are initialised (Invariant 3) and ours while `self`
        // lives (Invariants 1 and 2); an empty buffer has length 0.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` excludes every other access.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.memory, Memory::Empty) {
            Memory::Pooled { pool, chunk } => {
                pool.free.push(chunk).expect("the queue has a place for every chunk (Invariant 1)");
            }
            // If there is no place it is freed.
            Memory::Spare { pool, memory } => drop(pool.spare.push(memory)),
            Memory::Heap(_) | Memory::Empty => {}
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self.memory {
            Memory::Empty => "empty",
            Memory::Heap(_) | Memory::Spare { .. } => "heap",
            Memory::Pooled { .. } if self.is_registered() => "registered",
            Memory::Pooled { .. } => "pool",
        };
        write!(f, "Buffer({} bytes, {origin})", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_disjoint() {
        // The last two are large enough for huge pages.
        let large = HUGE_PAGE / 2 + 1;
        for pool in [
            Pool::new(5000, 3),
            Pool::untouched(5000, 3),
            Pool::new(large, 3),
            Pool::untouched(large, 3),
        ] {
            let bytes = pool.chunk_bytes();
            let mut buffers: Vec<_> = (0..5).map(|_| pool.buffer(bytes)).collect();
            for (i, buffer) in buffers.iter_mut().enumerate() {
                assert_eq!(buffer.start().as_ptr() as usize % ALIGNMENT, 0);
                assert!(buffer.iter().all(|&byte| byte == 0), "initialised");
                buffer.fill(i as u8);
            }
            for (i, buffer) in buffers.iter().enumerate() {
                assert!(buffer.iter().all(|&byte| usize::from(byte) == i));
            }
            assert!(format!("{:?}", buffers[4]).contains("heap"));
        }
    }

    #[test]
    fn long_buffers_are_used_again() {
        let pool = Pool::new(4096, 1);
        let long = pool.buffer(100_000);
        let start = long.start();
        drop(long);
        let mut shorter = pool.buffer(50_000);
        assert_eq!((shorter.start(), shorter.len()), (start, 50_000));
        shorter.truncate(1000);
        drop(shorter);
        let again = pool.buffer(100_000);
        assert_eq!((again.start(), again.len()), (start, 100_000), "all of it");
        drop(again);
        let longer = pool.buffer(200_000);
        assert!(longer.iter().all(|&byte| byte == 0), "new");
        drop(longer);
        let many: Vec<_> = (0..2 * SPARE).map(|_| pool.buffer(5000)).collect();
        drop(many);
        assert_eq!(pool.spare.len(), SPARE);
        drop(pool.buffer(SPARE_BYTES_MAX + 1));
        assert!(pool.spare.pop().is_some_and(|spare| spare.capacity <= SPARE_BYTES_MAX));
    }

    #[test]
    fn only_the_registered_prefix_counts() {
        let pool = Pool::new(4096, 4);
        // With two rings, of which one could not have more.
        pool.set_registered(3 * 4096);
        pool.set_registered(2 * 4096);
        let buffers: Vec<_> = (0..4).map(|_| pool.buffer(1)).collect();
        let registered = buffers.iter().filter(|b| b.is_registered_in(&pool)).count();
        assert_eq!(registered, 2);
        let other = Pool::new(4096, 1);
        assert!(!buffers[0].is_registered_in(&other));
        assert!(!pool.buffer(4097).is_registered(), "too large for a chunk");
    }
}
