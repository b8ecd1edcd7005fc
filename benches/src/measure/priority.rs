//! Which threads the scheduler prefers.

/// How a thread is scheduled.
///
/// ```
/// use tierce_bench::measure::Priority;
/// assert!(Priority::Normal.set(), "anybody may");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Priority {
    /// As any thread.
    Normal,
    /// Whenever it can run it does, before all normal ones: SCHED_FIFO, 20 of 1 to 99.
    RealTime,
}

impl Priority {
    /// Changes the calling thread's. `false` if the system does not permit that.
    #[cfg(target_os = "linux")]
    #[must_use]
    #[expect(unsafe_code, reason = "a system call that no safe interface at hand offers")]
    pub fn set(self) -> bool {
        let (policy, priority) = match self {
            Self::Normal => (libc::SCHED_OTHER, 0),
            Self::RealTime => (libc::SCHED_FIFO, 20),
        };
        let parameters = libc::sched_param { sched_priority: priority };
        // SAFETY: 0 is the calling thread, and the pointer is to a live value of the right type,
        // which the call only reads.
        unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) == 0 }
    }

    /// Changes the calling thread's. `false` if the system does not permit that.
    #[cfg(not(target_os = "linux"))]
    #[must_use]
    pub fn set(self) -> bool {
        self == Self::Normal
    }
}
