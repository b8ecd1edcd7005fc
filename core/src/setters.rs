//! One method per setting, for structs that may gain more of them.

/// `Config::default().cpus(2).sync(false)`: for each field of `$name` a method of its name that
/// takes and returns the whole. (For the crates of this workspace.)
#[doc(hidden)]
#[macro_export]
macro_rules! setters {
    ($name:ident { $($field:ident: $type:ty),+ $(,)? }) => {
        /// What each sets is told at the field of its name.
        impl $name {$(
            #[doc = concat!("With this [`", stringify!($field), "`].")]
            #[doc = concat!("\n\n[`", stringify!($field), "`]: Self#structfield.", stringify!($field))]
            #[must_use]
            pub fn $field(mut self, $field: $type) -> Self {
                self.$field = $field;
                self
            }
        )+}
    };
}
