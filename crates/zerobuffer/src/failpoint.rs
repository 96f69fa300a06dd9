//! Places where a test can kill or stop the process: a `failpoint!` at every step of the protocol that
//! another process can see.
//!
//! Without the feature `failpoints` the macro expands to nothing, and none of this is compiled; `cargo
//! xtask failpoints` shows that a release build holds no name of a step.

/// Marks a step. Costs nothing, and is nothing, without the feature.
#[cfg(any(loom, not(feature = "failpoints")))]
macro_rules! failpoint {
    ($step:literal) => {};
}

#[cfg(all(feature = "failpoints", not(loom)))]
macro_rules! failpoint {
    ($step:literal) => {
        crate::failpoint::reach(concat!("failpoint ", $step))
    };
}

pub(crate) use failpoint;

#[cfg(all(feature = "failpoints", not(loom)))]
mod armed {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, PoisonError};

    /// What happens at the step that is armed.
    #[derive(Debug)]
    struct Armed {
        step: String,
        signal: i32,
        /// How often the step is passed before.
        skip: u32,
    }

    static IS_ARMED: AtomicBool = AtomicBool::new(false);
    static ARMED: Mutex<Option<Armed>> = Mutex::new(None);

    /// The process sends itself `signal` when it has passed `step` `skip` times; once.
    pub fn arm(step: &str, signal: i32, skip: u32) {
        let armed = Armed { step: format!("failpoint {step}"), signal, skip };
        *ARMED.lock().unwrap_or_else(PoisonError::into_inner) = Some(armed);
        IS_ARMED.store(true, Ordering::SeqCst);
    }

    /// Whether the armed step has not been reached.
    pub fn is_armed() -> bool {
        IS_ARMED.load(Ordering::SeqCst)
    }

    /// A step is reached.
    #[inline]
    pub(crate) fn reach(step: &str) {
        if IS_ARMED.load(Ordering::Relaxed) {
            reach_armed(step);
        }
    }

    #[cold]
    fn reach_armed(step: &str) {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *armed {
            Some(armed) if armed.step == step && armed.skip > 0 => armed.skip -= 1,
            Some(Armed { step: wanted, signal, .. }) if wanted == step => {
                let signal = *signal;
                *armed = None;
                drop(armed);
                IS_ARMED.store(false, Ordering::SeqCst);
                crate::sys::signal_self(signal);
            }
            _ => {}
        }
    }
}

#[cfg(all(feature = "failpoints", not(loom)))]
pub(crate) use armed::reach;
#[cfg(all(feature = "failpoints", not(loom)))]
pub use armed::{arm, is_armed};
