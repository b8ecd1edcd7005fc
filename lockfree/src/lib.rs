//! The concurrent bucket allocator.
