//! A bounded amount of memory, handed out in the order of asking.
//!
//! Whoever asks first is served first, also when he asks for more than is free just then: a large
//! value is not overtaken by small ones for ever. Nothing is dropped when memory is short; who
//! inserts waits, or is told so if he asked not to wait.
//!
//! What was used is kept for the next one, as much as is free: from malloc every thread would get
//! memory of his own, which nobody else gets when it is freed, several times the budget in all.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The memory of one cache's write buffers.
#[derive(Debug)]
pub(crate) struct Budget {
    total: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Memory that was used before, at most `free` bytes.
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
    line: VecDeque<Waiting>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    bytes: usize,
    waker: Waker,
}

impl State {
    /// Gives back memory that others have a right to now.
    fn trim(&mut self) {
        while self.spare_bytes > self.free {
            let spare = self.spare.pop().map_or(0, |spare| spare.capacity());
            self.spare_bytes -= spare;
        }
    }

    /// Whoever is first can be served?
    fn first_waker(&self) -> Option<Waker> {
        self.line.front().filter(|first| first.bytes <= self.free).map(|first| first.waker.clone())
    }
}

impl Budget {
    pub(crate) fn new(total: usize) -> Arc<Self> {
        let state = State {
            free: total,
            spare: Vec::new(),
            spare_bytes: 0,
            line: VecDeque::new(),
            next_ticket: 0,
        };
        Arc::new(Self { total, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `bytes` of it, at once or not at all.
    pub(crate) fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        let mut state = self.lock();
        (state.line.is_empty() && bytes <= state.free).then(|| {
            state.free -= bytes;
            Permit::new(Arc::clone(self), bytes)
        })
    }

    /// `bytes` of it, when those who asked before have been served.
    ///
    /// # Panics
    ///
    /// If that is more than there is: it would never come.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Take {
        assert!(bytes <= self.total, "{bytes} of {} bytes", self.total);
        Take { budget: Arc::clone(self), bytes, ticket: None }
    }

    /// Bytes in all.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Bytes that are in use.
    pub(crate) fn used(&self) -> usize {
        self.total - self.lock().free
    }
}

/// See [`Budget::take`].
#[derive(Debug)]
pub(crate) struct Take {
    budget: Arc<Budget>,
    bytes: usize,
    ticket: Option<u64>,
}

impl Future for Take {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        let budget = Arc::clone(&self.budget);
        let mut state = budget.lock();
        let Some(ticket) = self.ticket else {
            if state.line.is_empty() && self.bytes <= state.free {
                state.free -= self.bytes;
                drop(state);
                return Poll::Ready(Permit::new(budget, self.bytes));
            }
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            let waker = context.waker().clone();
            state.line.push_back(Waiting { ticket, bytes: self.bytes, waker });
            self.ticket = Some(ticket);
            return Poll::Pending;
        };
        let first = state.line.front().is_some_and(|first| first.ticket == ticket);
        if first && self.bytes <= state.free {
            let own = state.line.pop_front();
            state.free -= self.bytes;
            self.ticket = None;
            let next = state.first_waker();
            drop(state);
            drop(own); // not before: see below
            if let Some(next) = next {
                next.wake();
            }
            return Poll::Ready(Permit::new(budget, self.bytes));
        }
        let own = state.line.iter_mut().find(|waiting| waiting.ticket == ticket);
        let own = own.filter(|own| !own.waker.will_wake(context.waker()));
        let old = own.map(|own| std::mem::replace(&mut own.waker, context.waker().clone()));
        // A waker may be the last that holds its task, and that may hold a permit or wait for one.
        drop(state);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Take {
    /// Leaves the line; who is first now may have been waiting for us only.
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.budget.lock();
        let at = state.line.iter().position(|waiting| waiting.ticket == ticket);
        let own = at.and_then(|at| state.line.remove(at));
        let next = state.first_waker();
        drop(state);
        drop(own); // not before: see `poll`
        if let Some(next) = next {
            next.wake();
        }
    }
}

/// A part of the budget; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
    /// What it was used for, when it is given back.
    used: Vec<u8>,
}

impl Permit {
    /// The bytes are the holder's from now on.
    const fn new(budget: Arc<Budget>, bytes: usize) -> Self {
        Self { budget, bytes, used: Vec::new() }
    }

    /// Whether it is for so many bytes.
    pub(crate) const fn is_for(&self, bytes: usize) -> bool {
        bytes <= self.bytes
    }

    /// Memory for `capacity` bytes, which it is for.
    pub(crate) fn memory(&self, capacity: usize) -> Vec<u8> {
        let mut state = self.budget.lock();
        let fitting = state.spare.iter().rposition(|spare| spare.capacity() >= capacity);
        let spare = fitting.map(|at| state.spare.swap_remove(at));
        state.spare_bytes -= spare.as_ref().map_or(0, Vec::capacity);
        state.trim();
        drop(state);
        spare.unwrap_or_else(|| Vec::with_capacity(capacity))
    }

    /// Gives back the permit and memory that it was for.
    pub(crate) fn give_back(mut self, mut memory: Vec<u8>) {
        memory.clear();
        self.used = memory;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let used = std::mem::take(&mut self.used);
        let mut state = self.budget.lock();
        state.free += self.bytes;
        // What nobody used takes no memory.
        if used.capacity() > 0 && state.spare_bytes + used.capacity() <= state.free {
            state.spare_bytes += used.capacity();
            state.spare.push(used);
        }
        let next = state.first_waker();
        drop(state);
        if let Some(next) = next {
            next.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            // Relaxed: read by the same thread.
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll(take: &mut Take, count: &Arc<Count>) -> Option<Permit> {
        let waker = Waker::from(Arc::clone(count));
        match Pin::new(take).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn first_come_first_served_whatever_the_size() {
        let budget = Budget::new(10);
        let (large_woken, small_woken) = (Arc::<Count>::default(), Arc::<Count>::default());
        let held = budget.try_take(6).expect("it is free");
        let mut large = budget.take(8);
        let mut small = budget.take(1);
        assert!(poll(&mut large, &large_woken).is_none());
        assert!(poll(&mut small, &small_woken).is_none(), "it would fit, but was not first");
        assert!(budget.try_take(1).is_none());
        drop(held);
        // Relaxed: as above.
        assert_eq!(large_woken.0.load(Ordering::Relaxed), 1);
        let large = poll(&mut large, &large_woken).expect("10 are free");
        // Relaxed: as above.
        assert_eq!(small_woken.0.load(Ordering::Relaxed), 1, "it is first now, and fits");
        let small = poll(&mut small, &small_woken).expect("2 are free");
        assert_eq!(budget.used(), 9);
        drop((large, small));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn who_gives_up_lets_the_next_pass() {
        let budget = Budget::new(10);
        let woken = Arc::<Count>::default();
        let held = budget.try_take(5).expect("it is free");
        let (mut large, mut small) = (budget.take(9), budget.take(5));
        assert!(poll(&mut large, &woken).is_none() && poll(&mut small, &woken).is_none());
        drop(large);
        // Relaxed: as above.
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(poll(&mut small, &woken).is_some());
        drop(held);
    }

    /// A waker that looks at the budget when it is dropped, as a task may that waits for it.
    struct Holds(Arc<Budget>, Arc<AtomicUsize>);

    impl Wake for Holds {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Holds {
        fn drop(&mut self) {
            // Relaxed: read by the same thread.
            self.1.fetch_add(usize::from(self.0.state.try_lock().is_ok()), Ordering::Relaxed);
        }
    }

    #[test]
    fn wakers_are_dropped_without_the_lock() {
        let budget = Budget::new(10);
        let free = Arc::new(AtomicUsize::new(0));
        let poll = |take: &mut Take| {
            let waker = Waker::from(Arc::new(Holds(budget.clone(), free.clone())));
            Pin::new(take).poll(&mut Context::from_waker(&waker)).is_ready()
        };
        let held = budget.try_take(10).expect("it is free");
        let (mut first, mut second) = (budget.take(5), budget.take(5));
        assert!(!poll(&mut first) && !poll(&mut first), "another waker in place of the first");
        assert!(!poll(&mut second));
        drop(held);
        assert!(poll(&mut first));
        drop(second);
        // Relaxed: as above.
        assert_eq!(free.load(Ordering::Relaxed), 4, "the lock was free each time");
    }

    #[test]
    fn memory_is_used_again_and_never_more_than_there_is() {
        let budget = Budget::new(1000);
        let spare_bytes = || budget.lock().spare_bytes;
        let take = |bytes| {
            let permit = budget.try_take(bytes).expect("it is free");
            let memory = permit.memory(bytes);
            (permit, memory)
        };
        let (permit, memory) = take(400);
        let first = memory.as_ptr();
        permit.give_back(memory);
        let (permit, mut memory) = take(300);
        assert_eq!(memory.as_ptr(), first, "the same again");
        memory.extend([7; 300]);
        permit.give_back(memory);
        assert_eq!(spare_bytes(), 400);
        // It does not fit, and there is no room for both.
        let (permit, memory) = take(700);
        assert_eq!((spare_bytes(), memory.len()), (0, 0));
        permit.give_back(memory);
        assert_eq!((spare_bytes(), budget.used()), (700, 0));
    }
}
