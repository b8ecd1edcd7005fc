//! Bucket allocation for flash caches.
