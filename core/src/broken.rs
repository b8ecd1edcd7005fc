//! Deliberate breaks: places where the code can be made wrong on purpose, to see a test notice.
//!
//! `broken!("name")` is `false`, and nothing is left of it. Only with `--cfg tierce_mutants`,
//! which `cargo xtask mutants` compiles with, is it a question: whether the environment variable
//! `TIERCE_MUTANT` says `name`. So everything is compiled once for all breaks, and each run has
//! one of them.
//!
//! The question must order nothing, or a break that takes an ordering away would be none: each
//! place remembers its answer in an atomic of its own, which is accessed relaxed, and the
//! environment is looked at when a place is reached for the first time. The atomics are the
//! standard library's, also in models: the checker does not see them, and since the answer never
//! changes, no execution differs from another by them.
//!
//! A place that is reached with its break chosen says so once, on standard error: a test that
//! fails without it did not fail because of the break.

/// Whether the deliberate break of this name is chosen. (For the crates of this workspace.)
#[cfg(not(tierce_mutants))]
#[doc(hidden)]
#[macro_export]
macro_rules! broken {
    ($name:literal) => {
        // `false`; but lints shall not take the conditions of two breaks for one.
        const { $name.is_empty() }
    };
}

/// Whether the deliberate break of this name is chosen. (For the crates of this workspace.)
#[cfg(tierce_mutants)]
#[doc(hidden)]
#[macro_export]
macro_rules! broken {
    ($name:literal) => {{
        static HOOK: $crate::broken::Hook = $crate::broken::Hook::new($name);
        HOOK.is_chosen()
    }};
}

#[cfg(tierce_mutants)]
pub use hook::Hook;

#[cfg(tierce_mutants)]
mod hook {
    use std::env;
    use std::io::{self, Write as _};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU8, Ordering};

    const UNKNOWN: u8 = 0;
    const OTHER: u8 = 1;
    const CHOSEN: u8 = 2;

    /// One place that can be broken.
    #[derive(Debug)]
    pub struct Hook {
        name: &'static str,
        answer: AtomicU8,
    }

    impl Hook {
        /// A place that the break `name` concerns.
        pub const fn new(name: &'static str) -> Self {
            Self { name, answer: AtomicU8::new(UNKNOWN) }
        }

        /// Whether it is to be broken.
        #[inline]
        pub fn is_chosen(&self) -> bool {
            // Relaxed: the answer is all there is, and it must order nothing.
            match self.answer.load(Ordering::Relaxed) {
                UNKNOWN => self.ask(),
                answer => answer == CHOSEN,
            }
        }

        #[cold]
        fn ask(&self) -> bool {
            static NAME: LazyLock<Option<String>> =
                LazyLock::new(|| env::var("TIERCE_MUTANT").ok());
            let is_chosen = NAME.as_deref() == Some(self.name);
            // Relaxed: as above; whoever asks too finds the same answer.
            self.answer.store(if is_chosen { CHOSEN } else { OTHER }, Ordering::Relaxed);
            if is_chosen {
                // Not by `eprintln!`, which tests capture. If nobody can be told, nobody asked.
                let _ = writeln!(io::stderr(), "deliberate break {} reached", self.name);
            }
            is_chosen
        }
    }
}
