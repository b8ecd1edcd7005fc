//! A small key-value flash cache on the tierce allocator.
