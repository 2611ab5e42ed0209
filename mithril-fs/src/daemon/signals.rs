//! Signals: those that end the daemon are waited for by one thread; those that must not end it are ignored.

use std::mem::MaybeUninit;

/// Call before any other thread is started: they inherit the mask.
pub(crate) fn prepare() {
    // SAFETY: plain libc calls on a signal set of our own; SIGIO is ignored because its default ends the process,
    // and breaking a lease sends it.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &ending(), std::ptr::null_mut());
        libc::signal(libc::SIGIO, libc::SIG_IGN);
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
}

/// The signals that end the daemon.
fn ending() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set before anything is added.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        set.assume_init()
    }
}

/// Waits for a signal that ends the daemon; returns its number.
pub(crate) fn wait() -> i32 {
    let set = ending();
    loop {
        let mut signal = 0;
        // SAFETY: both pointers are to live values of the right type.
        if unsafe { libc::sigwait(&set, &mut signal) } == 0 {
            return signal;
        }
    }
}
