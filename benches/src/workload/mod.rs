//! Generated requests, for when there is no trace at hand.

mod sizes;
mod zipf;

pub use sizes::ValueSizes;
pub use zipf::{Zipf, ZipfSettings};
