//! What `{:?}` prints of public types: one short line of what a person wants to know, and nothing of what
//! they are made of. No lock is taken for it, so it can be printed anywhere.

/// Implements `Debug` with these fields of `$this`.
macro_rules! debug_line {
    ($type:ty, $name:literal, |$this:ident| $($field:ident: $value:expr),+) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let $this = self;
                f.debug_struct($name)$(.field(stringify!($field), &$value))+.finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use debug_line;
