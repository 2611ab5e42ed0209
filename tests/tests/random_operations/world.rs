//! A directory and the files that are open in it.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Result, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use mithril_tests::data::{Random, Weights};

use super::operation::{Operation, SLOTS};

pub(crate) struct World {
    root: PathBuf,
    open: [Option<File>; SLOTS],
}

/// The answer of the system, or its error number.
fn checked(result: libc::c_long) -> Result<u64> {
    u64::try_from(result).map_err(|_| std::io::Error::last_os_error())
}

fn nothing_open() -> std::io::Error {
    std::io::Error::from_raw_os_error(libc::EBADF)
}

/// Data that is worth packing, and data that is not.
fn data(seed: u64, len: usize) -> Vec<u8> {
    if seed.is_multiple_of(4) {
        return Random::new(seed).bytes(len);
    }
    // Few different ones, so that one file is the base of another.
    let mut weights = Weights::new(len / 2 + 1, seed % 3);
    (0..seed % 5).for_each(|_| weights.step(1e-4));
    let mut bytes = weights.bf16_file();
    bytes.truncate(len);
    bytes
}

impl World {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, open: Default::default() }
    }

    pub(crate) fn close_all(&mut self) {
        self.open = Default::default();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn c_path(&self, name: &str) -> CString {
        CString::new(self.path(name).as_os_str().as_bytes()).expect("no name has a zero")
    }

    fn file(&self, slot: usize) -> Result<&File> {
        self.open[slot].as_ref().ok_or_else(nothing_open)
    }

    /// What came of it, to be compared.
    pub(crate) fn run(&mut self, operation: &Operation) -> String {
        match self.perform(operation) {
            Ok(answer) => answer,
            Err(error) => {
                format!("error {}", error.raw_os_error().map_or(error.to_string(), |e| e.to_string()))
            }
        }
    }

    #[allow(clippy::too_many_lines, reason = "one arm an operation")]
    fn perform(&mut self, operation: &Operation) -> Result<String> {
        let done = || Ok("done".to_owned());
        match operation {
            Operation::Save { name, seed, len } => {
                let mut file = File::create(self.path(name))?;
                for part in data(*seed, *len).chunks(50_000) {
                    file.write_all(part)?;
                }
                done()
            }
            Operation::Open { slot, name, flags, mode } => {
                self.open[*slot] = None;
                let access = flags & libc::O_ACCMODE;
                let file = OpenOptions::new()
                    .read(access != libc::O_WRONLY)
                    .write(access != libc::O_RDONLY)
                    // The library refuses some of these together; the system does not.
                    .custom_flags(flags & !libc::O_ACCMODE & !libc::O_TRUNC)
                    .mode(*mode)
                    .open(self.path(name))?;
                if flags & libc::O_TRUNC != 0 && access != libc::O_RDONLY {
                    file.set_len(0)?;
                }
                self.open[*slot] = Some(file);
                done()
            }
            Operation::Close { slot } => {
                self.open[*slot] = None;
                done()
            }
            Operation::Read { slot, at, len } => {
                let mut bytes = vec![0; *len];
                let count = self.file(*slot)?.read_at(&mut bytes, *at)?;
                Ok(format!("{count} bytes {}", blake3::hash(&bytes[..count])))
            }
            Operation::Write { slot, at, len, seed } => {
                let count = self.file(*slot)?.write_at(&data(*seed, *len), *at)?;
                Ok(format!("{count} bytes"))
            }
            Operation::Append { name, len, seed } => {
                let mut file = OpenOptions::new().append(true).open(self.path(name))?;
                file.write_all(&data(*seed, *len))?;
                Ok(format!("{} bytes", file.metadata()?.len()))
            }
            Operation::SetLen { slot, len } => {
                self.file(*slot)?.set_len(*len)?;
                done()
            }
            Operation::Truncate { name, len } => {
                let len = libc::off_t::try_from(*len).expect("it is short");
                // SAFETY: the path is a C string.
                checked(unsafe { libc::truncate(self.c_path(name).as_ptr(), len) }.into())?;
                done()
            }
            Operation::Allocate { slot, mode, at, len } => {
                let file = self.file(*slot)?;
                let (at, len) = (at.cast_signed(), len.cast_signed());
                // SAFETY: a descriptor and numbers.
                checked(unsafe { libc::fallocate(file.as_raw_fd(), *mode, at, len) }.into())?;
                done()
            }
            Operation::Sync { slot, data } => {
                let file = self.file(*slot)?;
                let synced = if *data { file.sync_data() } else { file.sync_all() };
                synced?;
                done()
            }
            Operation::MapWrite { slot, at, len, seed } => {
                let bytes = data(*seed, *len);
                self.map(*slot, *at, *len, libc::PROT_READ | libc::PROT_WRITE, |mapped| {
                    mapped.copy_from_slice(&bytes[..mapped.len()]);
                    "written".to_owned()
                })
            }
            Operation::MapRead { slot, at, len } => {
                self.map(*slot, *at, *len, libc::PROT_READ, |mapped| blake3::hash(mapped).to_string())
            }
            Operation::Copy { from, to, at, target, len } => {
                let (from, to) = (self.file(*from)?, self.file(*to)?);
                let (mut at, mut target) = (at.cast_signed(), target.cast_signed());
                // SAFETY: descriptors, and pointers to numbers that live on.
                let copied = unsafe {
                    libc::copy_file_range(from.as_raw_fd(), &mut at, to.as_raw_fd(), &mut target, *len, 0)
                };
                Ok(format!("{} bytes", checked(copied as libc::c_long)?))
            }
            Operation::SendFile { from, to, at, len } => {
                let (from, to) = (self.file(*from)?, self.file(*to)?);
                let mut at = at.cast_signed();
                // SAFETY: as above.
                let sent = unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), &mut at, *len) };
                Ok(format!("{} bytes", checked(sent as libc::c_long)?))
            }
            Operation::ReadAll { name } => Ok(blake3::hash(&fs::read(self.path(name))?).to_string()),
            Operation::Stat { name } => {
                let stat = fs::symlink_metadata(self.path(name))?;
                Ok(format!(
                    "{:o} {} {}",
                    stat.mode(),
                    stat.nlink(),
                    if stat.is_dir() { 0 } else { stat.len() }
                ))
            }
            Operation::Rename { from, to, flags } => {
                let (from, to) = (self.c_path(from), self.c_path(to));
                let here = libc::AT_FDCWD;
                // SAFETY: the paths are C strings.
                checked(unsafe { libc::renameat2(here, from.as_ptr(), here, to.as_ptr(), *flags) }.into())?;
                done()
            }
            Operation::Link { from, to } => {
                fs::hard_link(self.path(from), self.path(to)).and_then(|()| done())
            }
            Operation::Symlink { target, name } => {
                std::os::unix::fs::symlink(target, self.path(name))?;
                done()
            }
            Operation::ReadLink { name } => {
                Ok(fs::read_link(self.path(name))?.to_string_lossy().into_owned())
            }
            Operation::Unlink { name } => fs::remove_file(self.path(name)).and_then(|()| done()),
            Operation::MakeDir { name } => fs::create_dir(self.path(name)).and_then(|()| done()),
            Operation::RemoveDir { name } => fs::remove_dir(self.path(name)).and_then(|()| done()),
            Operation::Mode { name, mode } => {
                fs::set_permissions(self.path(name), fs::Permissions::from_mode(*mode))?;
                done()
            }
            Operation::Times { name, seconds, nanoseconds } => {
                let time = libc::timespec { tv_sec: *seconds, tv_nsec: *nanoseconds };
                let times = [time, time];
                let path = self.c_path(name);
                // SAFETY: a C string and two times.
                checked(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), 0) }.into())?;
                let stat = fs::metadata(self.path(name))?;
                Ok(format!("{}.{:09}", stat.mtime(), stat.mtime_nsec()))
            }
            Operation::SetAttribute { name, key, len } => {
                let value = vec![b'v'; *len];
                rustix::fs::setxattr(self.path(name), key.as_str(), &value, rustix::fs::XattrFlags::empty())?;
                done()
            }
            Operation::RemoveAttribute { name, key } => {
                rustix::fs::removexattr(self.path(name), key.as_str())?;
                done()
            }
            Operation::List { name } => {
                let mut names: Vec<String> = fs::read_dir(self.path(name))?
                    .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                    .collect::<Result<_>>()?;
                names.sort();
                Ok(names.join(" "))
            }
        }
    }

    /// Maps what there is of a file from the page of `at` on, shared, and lets `work` at the bytes from there.
    fn map(
        &self,
        slot: usize,
        at: u64,
        len: usize,
        protection: i32,
        work: impl FnOnce(&mut [u8]) -> String,
    ) -> Result<String> {
        let file = self.file(slot)?;
        let at = at / 4096 * 4096;
        // Beyond the end there is nothing but signals.
        let there = file.metadata()?.len().saturating_sub(at);
        let len = len.min(usize::try_from(there).expect("it is short"));
        if len == 0 {
            return Ok("nothing".to_owned());
        }
        // SAFETY: a new mapping of a range of an open file, which nobody cuts before it is given back.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                at.cast_signed(),
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: these bytes were mapped, with these rights: reading asks for no more than that.
        let answer = work(unsafe { std::slice::from_raw_parts_mut(mapped.cast(), len) });
        // SAFETY: what was mapped above, and the slice is gone.
        unsafe { libc::munmap(mapped, len) };
        Ok(answer)
    }
}
