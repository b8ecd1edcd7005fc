//! What happens, as spans and events of the crate `tracing`, if the feature of that name is on.
//!
//! Without the feature [`event!`] and [`in_span!`] cost nothing; what an event says is not even
//! evaluated. With it, what nobody listens to costs a load. The target is `tierce`, as for the
//! events of the allocator, which are listed in `lockfree/src/events.rs`:
//!
//! | span | level | what is in it |
//! |---|---|---|
//! | `get`, `insert`, `remove` | trace | a request, from its call to its end, with all that it waits for |
//! | `flush` | debug | making everything durable |
//! | `recovery` | info | opening: what the devices say of themselves |
//! | `gc` | debug | a garbage collection |
//!
//! | event | level | fields |
//! |---|---|---|
//! | `hit`, `miss` | trace | bytes of the value |
//! | `memory_wait` | debug | bytes that an insert waits for |
//! | `recovered` | info | entries, buckets that hold data |
//! | `recovery_failed` | warn | cause |
//! | `collected` | debug | entries, removed |
//! | `evicted` | debug | device, buckets whose content is about to go |
//! | `read_failed` | warn | device, cause |
//! | `write_failed` | error | device, cause; the device is out of use |

/// An event: `event!(TRACE, "hit", bytes = …, …)`.
#[cfg(feature = "tracing")]
macro_rules! event {
    ($level:ident, $name:literal $(, $field:ident = $value:expr)*) => {
        tracing::event!(
            target: "tierce",
            tracing::Level::$level,
            event = $name
            $(, $field = %$value)*
        )
    };
}

/// Nothing.
#[cfg(not(feature = "tracing"))]
macro_rules! event {
    ($level:ident, $name:literal $(, $field:ident = $value:expr)*) => {
        if false {
            $(let _ = &$value;)*
        }
    };
}

/// A future in a span: `in_span!(TRACE, "get", …)`.
#[cfg(feature = "tracing")]
macro_rules! in_span {
    ($level:ident, $name:literal, $future:expr) => {
        tracing::Instrument::instrument(
            $future,
            tracing::span!(target: "tierce", tracing::Level::$level, $name),
        )
    };
}

/// The future.
#[cfg(not(feature = "tracing"))]
macro_rules! in_span {
    ($level:ident, $name:literal, $future:expr) => {
        $future
    };
}

/// A span until the end of the block: `let _span = span!(DEBUG, "gc")`.
#[cfg(feature = "tracing")]
macro_rules! span {
    ($level:ident, $name:literal) => {
        tracing::span!(target: "tierce", tracing::Level::$level, $name).entered()
    };
}

/// Nothing.
#[cfg(not(feature = "tracing"))]
macro_rules! span {
    ($level:ident, $name:literal) => {
        ()
    };
}

pub(crate) use {event, in_span, span};

#[cfg(all(test, feature = "tracing"))]
mod tests {
    use crate::collector::collect;
    use crate::testing::formatted;
    use crate::{Cache, Config};
    use std::collections::BTreeSet;
    use std::fmt::Debug;
    use std::sync::{Arc, Mutex};
    use tierce_io::{Fault, FaultKind, Operation};
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    /// Remembers the names of spans and events.
    #[derive(Clone, Default)]
    struct Names(Arc<Mutex<BTreeSet<String>>>);

    impl Names {
        fn add(&self, name: &str) {
            self.0.lock().expect("no test panics with it").insert(name.to_owned());
        }
    }

    impl Visit for Names {
        fn record_debug(&mut self, _field: &Field, _value: &dyn Debug) {}

        fn record_str(&mut self, field: &Field, value: &str) {
            if field.name() == "event" {
                self.add(value);
            }
        }
    }

    impl Subscriber for Names {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "tierce"
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            self.add(span.metadata().name());
            Id::from_u64(1)
        }
        fn record(&self, _span: &Id, _values: &Record<'_>) {}
        fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
        fn event(&self, event: &Event<'_>) {
            event.record(&mut self.clone());
        }
        fn enter(&self, _span: &Id) {}
        fn exit(&self, _span: &Id) {}
    }

    fn everything_happens() {
        let sim = formatted(0, 640, 16 << 10);
        let cache = Cache::open_on(&Config::new("sim"), vec![sim.clone()]).expect("opens");
        cache.insert(b"key", b"value").expect("room");
        cache.get(b"key").expect("a get never fails");
        cache.get(b"other").expect("a get never fails");
        cache.flush().expect("the device works");
        cache.remove(b"other").expect("nothing to remove");
        collect(cache.engine());
        sim.inject(Fault::new(FaultKind::Io, Operation::Read, 0).for_good());
        cache.get(b"key").expect("a get never fails");
    }

    #[test]
    fn every_request_is_seen_by_who_listens() {
        let names = Names::default();
        let listens = tracing::Dispatch::new(names.clone());
        // With one listener alone, a place that another test's thread comes to first is taken for
        // one that nobody listens to.
        let _another = tracing::Dispatch::new(Names::default());
        tracing::dispatcher::with_default(&listens, everything_happens);
        let wanted = [
            "collected",
            "flush",
            "gc",
            "get",
            "hit",
            "insert",
            "miss",
            "read_failed",
            "recovered",
            "recovery",
            "remove",
        ];
        let seen = names.0.lock().expect("no test panics with it");
        // And what the allocator says.
        let missing: Vec<_> = wanted.iter().filter(|&&name| !seen.contains(name)).collect();
        assert!(missing.is_empty(), "{missing:?} is missing in {seen:?}");
    }
}
