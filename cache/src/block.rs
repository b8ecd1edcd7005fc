//! Waiting for a future on the calling thread: every operation is written once, as a future, and
//! whoever has no runtime waits for it here.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks until `future` is ready, or until `deadline`: then it is dropped, which leaves nothing
/// behind, and the answer is `None`.
pub(crate) fn block_until<F: Future>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        match deadline.map(|deadline| deadline.checked_duration_since(Instant::now())) {
            None => thread::park(),
            Some(Some(left)) => thread::park_timeout(left),
            Some(None) => return None,
        }
    }
}

/// Blocks until `future` is ready.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    block_until(future, None).expect("without a deadline it ends with the future")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_deadline_ends_it() {
        assert_eq!(block_on(async { 7 }), 7);
        let deadline = Instant::now() + Duration::from_millis(5);
        assert_eq!(block_until(std::future::pending::<()>(), Some(deadline)), None);
        assert!(Instant::now() >= deadline);
    }
}
