//! Other users than the one who runs the tests, who has to be root for it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;

use rustix::process::{Gid, Uid};

/// A user without any right, and the group of the same number.
pub const NOBODY: u32 = 65_534;

/// Puts the mode of a file back when it is dropped.
#[derive(Debug)]
pub struct RestoredMode(Option<Permissions>);

/// Lets every user mount for as long as the result lives.
///
/// # Errors
/// Those of changing the mode of `/dev/fuse`, where it is not open to all already.
pub fn open_fuse_to_users() -> io::Result<RestoredMode> {
    let before = fs::metadata(FUSE)?.permissions();
    if before.mode() & 0o006 == 0o006 {
        return Ok(RestoredMode(None));
    }
    fs::set_permissions(FUSE, Permissions::from_mode(0o666))?;
    Ok(RestoredMode(Some(before)))
}

const FUSE: &str = "/dev/fuse";

impl Drop for RestoredMode {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            let _ = fs::set_permissions(FUSE, before);
        }
    }
}

/// Runs `work` as this user, in one group and with no privileges. On a thread of its own, which ends with it: to the
/// kernel, each thread has its own identity.
///
/// # Panics
/// If that is not allowed, or if `work` does.
pub fn as_user<T: Send>(id: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
            rustix::thread::set_thread_groups(&[]).expect("root may change its groups");
            rustix::thread::set_thread_res_gid(group, group, group).expect("root may change its group");
            rustix::thread::set_thread_res_uid(user, user, user).expect("root may change its user");
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
