//! The process's own memory, from the kernel.

/// Bytes of memory the process has resident now; `None` where `/proc` does not say.
///
/// ```
/// if let Some(bytes) = tierce_bench::measure::rss_bytes() {
///     assert!(bytes > 100_000);
/// }
/// ```
#[must_use]
pub fn rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
