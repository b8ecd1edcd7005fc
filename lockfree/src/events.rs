//! What happens, as events of the crate `tracing`, if the feature of that name is on.
//!
//! Without the feature [`event!`] costs nothing: its arguments are not even evaluated. With it an
//! event that nobody listens to costs a load. The target is `tierce` for all:
//!
//! | event | level | fields |
//! |---|---|---|
//! | `alloc`, `invalidate`, `release` | trace | device, bucket; reserve or sectors |
//! | `alloc_fail`, `wait`, `wait_end` | debug | device, reserve |
//! | `pass` | debug | device, invalidated |
//! | `prio_write`, `prio_durable` | debug | device, seq; buckets in the batch |
//! | `gc_begin`, `gc_finish`, `gc_abandon` | debug | need_gc |
//! | `device_failed` | warn | device, cause |

/// An event: `event!(TRACE, "alloc", device = …, …)`.
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

pub(crate) use event;

#[cfg(all(test, feature = "tracing", not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use crate::{Allocator, Config, DeviceTable};
    use std::collections::BTreeSet;
    use std::fmt::Debug;
    use std::sync::{Arc, Mutex};
    use std::time::Instant;
    use tierce_core::{DeviceIndex, Geometry, Reserve};
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    /// Remembers the names of events.
    #[derive(Clone, Default)]
    struct Names(Arc<Mutex<BTreeSet<String>>>);

    impl Visit for Names {
        fn record_debug(&mut self, _field: &Field, _value: &dyn Debug) {}

        fn record_str(&mut self, field: &Field, value: &str) {
            if field.name() == "event" {
                self.0.lock().expect("no test panics with it").insert(value.to_owned());
            }
        }
    }

    impl Subscriber for Names {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "tierce"
        }
        fn new_span(&self, _span: &Attributes<'_>) -> Id {
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
        let geometry = Geometry::new(64, 1, 128, 8).expect("a legal shape");
        let table = DeviceTable::empty(geometry);
        let (allocator, mut reclaimers) =
            Allocator::start(Config::default(), vec![table]).expect("legal").finish();
        if let crate::Step::PrioWrite(mut write) = reclaimers[0].step() {
            write.encode(0, |_, _| ());
            assert!(write.confirm());
            reclaimers[0].prio_durable(write);
        }
        let _ = reclaimers[0].step();
        let mut held = Vec::new();
        while let Some(allocation) = allocator.try_alloc(Reserve::None).expect("in use") {
            held.push(allocation);
        }
        let late = Some(Instant::now());
        assert!(allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, late).is_err());
        allocator.begin_gc().expect("none is running").finish();
        drop(allocator.begin_gc().expect("none is running"));
        allocator.fail(DeviceIndex::FIRST, Arc::new(std::io::Error::other("a dead cell")));
    }

    #[test]
    fn every_event_is_seen_by_who_listens() {
        let names = Names::default();
        tracing::subscriber::with_default(names.clone(), everything_happens);
        let wanted = [
            "alloc",
            "alloc_fail",
            "device_failed",
            "gc_abandon",
            "gc_begin",
            "gc_finish",
            "invalidate",
            "pass",
            "prio_durable",
            "prio_write",
            "release",
            "wait",
            "wait_end",
        ];
        let seen = names.0.lock().expect("no test panics with it");
        assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
    }
}
