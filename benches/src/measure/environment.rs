//! The machine, and who else uses it.

use super::clock::process_cpu;
use super::number::number;
use serde::{Deserialize, Serialize};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where and how something was measured.
///
/// ```
/// use tierce_bench::measure::Environment;
/// assert!(Environment::read().cores > 0);
/// ```
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Environment {
    /// The processor's name.
    pub cpu: String,
    /// How many of its threads this process may use.
    pub cores: usize,
    /// Operating system and kernel.
    pub kernel: String,
    /// What the governor of CPU 0 says; "none" where there is none, as in most virtual machines.
    pub governor: String,
    /// The commit that was measured, with "+" if files differ from it.
    pub commit: String,
    /// The load of the last minute when the run began.
    #[serde(deserialize_with = "number")]
    pub load: f64,
    /// CPUs that others kept busy on average while it ran.
    #[serde(default)]
    pub others: f64,
    /// What one look at the clock costs, in nanoseconds.
    pub timer_nanos: f64,
    /// What an uncontended atomic read-modify-write costs, in nanoseconds.
    pub rmw_nanos: f64,
    /// The settings of the run.
    pub settings: String,
}

impl Environment {
    /// Of this machine now. What cannot be found out is "unknown".
    #[must_use]
    pub fn read() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim());
        let governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
        Self {
            cpu: model.unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            kernel: output("uname", &["-sr"]),
            governor: std::fs::read_to_string(governor)
                .map_or_else(|_| "none".to_owned(), |name| name.trim().to_owned()),
            commit: commit(),
            load: load_average(),
            others: 0.0,
            timer_nanos: super::timer_nanos(),
            rmw_nanos: super::rmw_nanos(),
            settings: String::new(),
        }
    }
}

fn commit() -> String {
    // The sources this was built from, not where it happens to be run.
    let sources = env!("CARGO_MANIFEST_DIR");
    let commit = output("git", &["-C", sources, "rev-parse", "--short", "HEAD"]);
    let changed = ["-C", sources, "status", "--porcelain", "--untracked-files=no"];
    let changed = output("git", &changed);
    if matches!(changed.as_str(), "" | "unknown") { commit } else { format!("{commit}+") }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok();
    let output = output.filter(|output| output.status.success());
    output.map_or_else(
        || "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

/// How much of the machine others used meanwhile.
///
/// ```
/// use tierce_bench::measure::Load;
/// let load = Load::begin();
/// assert!(load.of_others() >= 0.0);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Load {
    busy: Duration,
    own: Duration,
    since: Instant,
}

impl Load {
    /// From now on.
    #[must_use]
    pub fn begin() -> Self {
        Self { busy: busy(), own: process_cpu(), since: Instant::now() }
    }

    /// CPUs that others kept busy until now, on average; the hypervisor's other guests are
    /// among them. 0 where `/proc` does not say.
    #[must_use]
    pub fn of_others(&self) -> f64 {
        let busy = busy().saturating_sub(self.busy);
        let own = process_cpu().saturating_sub(self.own);
        busy.saturating_sub(own).as_secs_f64() / self.since.elapsed().as_secs_f64().max(1e-9)
    }
}

/// CPU time that all CPUs together were not idle. Linux counts it in hundredths of a second.
fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    let all: u64 = ticks.iter().take(8).sum();
    Duration::from_millis((all - idle) * 10)
}
