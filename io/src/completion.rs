//! The two ends of an operation under way: [`Completer`] for whoever performs it,
//! [`Completion`] for whoever asked.
//!
//! The state is one mutex per operation, which no other operation touches. Whatever happens to
//! the performing end, the asking end gets an answer: a [`Completer`] that is dropped answers
//! [`Error::Closed`].

use crate::buffer::Buffer;
use crate::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What an operation ends with: the request's buffer, or the error. The buffer is
/// [empty](Buffer::empty) for flush and discard.
pub type Outcome = Result<Buffer, Error>;

#[derive(Default)]
enum State {
    #[default]
    Pending,
    Awaited(Waker),
    Done(Outcome),
    Taken,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    done: Condvar,
}

impl Shared {
    /// No code that can panic runs under the lock, so a poisoned one is still consistent.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An operation under way. Wait for it with [`wait`](Self::wait) or `.await` it.
///
/// Dropping it is safe at any time: the operation goes on, and its buffer is freed when it is
/// done.
///
/// ```
/// use tierce_io::{Buffer, Completer, Completion};
/// let (completer, completion) = Completer::new("dev".into());
/// assert!(!completion.is_done());
/// completer.complete(Ok(Buffer::empty()));
/// completion.wait()?;
/// # Ok::<(), tierce_io::Error>(())
/// ```
#[must_use = "an operation whose completion is dropped may fail unseen"]
pub struct Completion {
    shared: Arc<Shared>,
}

impl Completion {
    /// Blocks until the operation is done.
    ///
    /// # Errors
    ///
    /// Whatever the operation ended with.
    pub fn wait(self) -> Outcome {
        let mut state = self.shared.lock();
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Done(outcome) => return outcome,
                State::Taken => panic!("a completion gives its outcome once"),
                pending => *state = pending,
            }
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether [`wait`](Self::wait) would return at once.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(*self.shared.lock(), State::Done(_) | State::Taken)
    }
}

impl Future for Completion {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = self.shared.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(outcome) => Poll::Ready(outcome),
            State::Taken => panic!("a completion is not polled after it was ready"),
            State::Pending | State::Awaited(_) => {
                *state = State::Awaited(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").field("done", &self.is_done()).finish()
    }
}

/// The performing end of an operation.
///
/// ```
/// use tierce_io::{Completer, Error};
/// let (completer, completion) = Completer::new("dev".into());
/// drop(completer); // say, its thread panicked
/// assert!(matches!(completion.wait(), Err(Error::Closed { .. })));
/// ```
pub struct Completer {
    shared: Option<Arc<Shared>>,
    device: Arc<str>,
}

impl Completer {
    /// Both ends of one operation on `device`.
    pub fn new(device: Arc<str>) -> (Self, Completion) {
        let shared = Arc::new(Shared::default());
        (Self { shared: Some(shared.clone()), device }, Completion { shared })
    }

    /// Ends the operation and wakes whoever waits for it.
    pub fn complete(mut self, outcome: Outcome) {
        self.finish(outcome);
    }

    fn finish(&mut self, outcome: Outcome) {
        let Some(shared) = self.shared.take() else { return };
        let before = std::mem::replace(&mut *shared.lock(), State::Done(outcome));
        // Both, because who polled once may block in `wait` now.
        shared.done.notify_all();
        if let State::Awaited(waker) = before {
            waker.wake();
        }
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        if self.shared.is_some() {
            let device = self.device.clone();
            self.finish(Err(Error::Closed { device }));
        }
    }
}

impl fmt::Debug for Completer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completer").field("device", &self.device).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            // Relaxed: read by the same thread.
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_future_is_woken_once_and_ready_once() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let (completer, mut completion) = Completer::new("dev".into());
        assert!(Pin::new(&mut completion).poll(&mut context).is_pending());
        assert!(Pin::new(&mut completion).poll(&mut context).is_pending());
        completer.complete(Ok(Buffer::new(7)));
        // Relaxed: written by this thread.
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let Poll::Ready(Ok(buffer)) = Pin::new(&mut completion).poll(&mut context) else {
            panic!("must be ready");
        };
        assert_eq!(buffer.len(), 7);
    }

    /// A waiting thread polled as a future before: both ways of waiting are woken.
    #[test]
    fn waiting_after_polling_is_woken() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count);
        let mut context = Context::from_waker(&waker);
        let (completer, mut completion) = Completer::new("dev".into());
        assert!(Pin::new(&mut completion).poll(&mut context).is_pending());
        let waiter = std::thread::spawn(move || completion.wait());
        completer.complete(Ok(Buffer::empty()));
        assert!(waiter.join().expect("no panic").is_ok());
    }
}
