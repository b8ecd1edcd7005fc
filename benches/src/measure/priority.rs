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

/// As long as this lives the thread that made it is scheduled as any thread, and what it starts
/// meanwhile stays so; then it is as before.
///
/// ```
/// use tierce_bench::measure::{NormalPriority, Priority};
/// let _ = Priority::RealTime.set(); // if the system permits
/// let normal = NormalPriority::begin();
/// let child = std::thread::spawn(|| "scheduled as any thread");
/// drop(normal);
/// # assert!(child.join().is_ok() && Priority::Normal.set());
/// ```
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct NormalPriority {
    /// Policy and priority of the thread, if it had other ones.
    #[cfg(target_os = "linux")]
    before: Option<(i32, i32)>,
    /// It is about one thread.
    thread: std::marker::PhantomData<*const ()>,
}

#[cfg(target_os = "linux")]
impl NormalPriority {
    /// From now on.
    #[expect(unsafe_code, reason = "system calls that no safe interface at hand offers")]
    pub fn begin() -> Self {
        let mut parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: 0 is the calling thread.
        let policy = unsafe { libc::sched_getscheduler(0) };
        // SAFETY: 0 is the calling thread, and the pointer is to a live value of the right type,
        // which the call only writes.
        let known = unsafe { libc::sched_getparam(0, &raw mut parameters) } == 0 && policy >= 0;
        let before = (known && policy != libc::SCHED_OTHER && Priority::Normal.set())
            .then_some((policy, parameters.sched_priority));
        Self { before, thread: std::marker::PhantomData }
    }
}

#[cfg(target_os = "linux")]
impl Drop for NormalPriority {
    #[expect(unsafe_code, reason = "a system call that no safe interface at hand offers")]
    fn drop(&mut self) {
        if let Some((policy, priority)) = self.before {
            let parameters = libc::sched_param { sched_priority: priority };
            // SAFETY: 0 is the calling thread, and the pointer is to a live value of the right
            // type, which the call only reads. If it is refused, the thread stays as it is.
            let _ = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl NormalPriority {
    /// From now on.
    pub fn begin() -> Self {
        Self { thread: std::marker::PhantomData }
    }
}
