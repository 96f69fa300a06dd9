//! The rank of a thread among others.

/// From now on the calling thread takes no CPU from one that runs when it wakes up itself. Where CPUs are short it gets as much
/// of them as others all the same: clients wait for what it does, and threads for its locks.
pub(crate) fn stand_back() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread, and the parameters are there for the call. Refused only by a sandbox, and then the
    // thread works as it did. Where the program has chosen a policy of its own, that stays.
    unsafe {
        if libc::sched_getscheduler(0) == libc::SCHED_OTHER {
            libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters);
        }
    }
}
