//! What a run counted.

use crate::backend::StoreStats;
use crate::measure::{Latency, LatencySummary};

/// What happened in a run. Serializes to the JSON object that `tierce replay --json` writes.
///
/// ```
/// use tierce_bench::replay::Outcome;
/// let json = serde_json::to_value(Outcome::default()).unwrap();
/// assert_eq!(json["hits"], 0);
/// assert_eq!(json["hit_us"]["p999"], 0.0);
/// assert_eq!(json["nbuckets"], 0);
/// ```
#[derive(Clone, PartialEq, Default, Debug, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Outcome {
    /// Requests taken from the trace or workload.
    pub requests: u64,
    /// Operations made of them: one for each request, or for each page of it.
    pub operations: u64,
    /// Operations that looked a key up.
    pub accesses: u64,
    /// Accesses that found it.
    pub hits: u64,
    /// hits / accesses, 0 to 1.
    pub hit_ratio: f64,
    /// The same in bytes.
    pub byte_hit_ratio: f64,
    /// How long the run took by the clock.
    pub seconds: f64,
    /// operations / seconds.
    pub ops_per_s: f64,
    /// Inserts that the store was asked for: writes, and fills after a miss.
    pub inserts: u64,
    /// The bytes of their values.
    pub inserted_bytes: u64,
    /// Inserts not tried because the value is larger than the store takes.
    pub too_large: u64,
    /// Removes.
    pub removes: u64,
    /// Whether hits were checked byte for byte against the latest version.
    pub verified: bool,
    /// Hits that were not what they should be.
    pub wrong_data: u64,
    /// What the first of them was, and should have been.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_wrong: Option<String>,
    /// What the store counted itself; dropped inserts are the more of what it counted and what
    /// it reported, as it may do either or both.
    #[serde(flatten)]
    pub store: StoreStats,
    /// The mean of [`StoreStats::held_buckets`] since each was used once: how much the store
    /// held.
    #[serde(default)]
    pub held_buckets_mean: f64,
    /// Latency of gets that hit.
    pub hit_us: LatencySummary,
    /// Latency of gets that missed, without the insert that follows.
    pub miss_us: LatencySummary,
    /// Latency of inserts.
    pub insert_us: LatencySummary,
    /// The process's resident memory at the end, where the system says.
    pub rss_bytes: Option<u64>,
}

/// What one thread counted.
#[derive(Default, Debug)]
pub(super) struct Tally {
    pub(super) operations: u64,
    pub(super) accesses: u64,
    pub(super) access_bytes: u64,
    pub(super) hits: u64,
    pub(super) hit_bytes: u64,
    pub(super) inserted_bytes: u64,
    pub(super) dropped: u64,
    pub(super) too_large: u64,
    pub(super) removes: u64,
    pub(super) wrong_data: u64,
    /// Buckets held, added up over so many samples.
    pub(super) held: (u64, u64),
    pub(super) first_wrong: Option<String>,
    pub(super) hit: Latency,
    pub(super) miss: Latency,
    pub(super) insert: Latency,
}

impl Tally {
    /// Both together.
    pub(super) fn merged(mut self, other: Self) -> Self {
        self.operations += other.operations;
        self.accesses += other.accesses;
        self.access_bytes = self.access_bytes.saturating_add(other.access_bytes);
        self.hits += other.hits;
        self.hit_bytes += other.hit_bytes;
        self.inserted_bytes += other.inserted_bytes;
        self.dropped += other.dropped;
        self.too_large += other.too_large;
        self.removes += other.removes;
        self.wrong_data += other.wrong_data;
        self.held.0 += other.held.0;
        self.held.1 += other.held.1;
        self.first_wrong = self.first_wrong.or(other.first_wrong);
        self.hit.merge(&other.hit);
        self.miss.merge(&other.miss);
        self.insert.merge(&other.insert);
        self
    }
}
