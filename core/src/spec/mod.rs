//! The executable specification: the allocator, sequentially.
