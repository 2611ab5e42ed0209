//! Several users on one mount: rights that programs give, and lists of access rights. All as root.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mithril_tests::mount::Mount;
use mithril_tests::{can_run, is_root};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

const NOBODY: u32 = 65_534;
const SOMEBODY: u32 = 54_321;
const GROUP: u32 = 54_322;

/// A mount that other users reach.
fn shared_mount(flags: &[&str]) -> Option<Mount> {
    if !can_run(is_root(), "acting as several users needs root") {
        return None;
    }
    let mut mount = Mount::unmounted(&[flags, &["--allow-other"]].concat());
    fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o777)).unwrap();
    mount.mount();
    Some(mount)
}

fn shell(user: u32, group: u32, script: &str, path: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(path).uid(user).gid(group).current_dir("/").stderr(Stdio::null());
    command
}

fn succeeds(user: u32, group: u32, script: &str, path: &Path) -> bool {
    shell(user, group, script, path).status().unwrap().success()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn file_with_mode(mount: &Mount, name: &str, mode: u32) -> std::path::PathBuf {
    let path = mount.join(name);
    fs::write(&path, b"a program").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// Another user's process that has a file open for writing until its input ends.
fn hold_open(path: &Path) -> Child {
    let mut holder = shell(NOBODY, NOBODY, "exec 3<>\"$1\"; echo ready; read line", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(holder.stdout.as_mut().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    holder
}

fn let_go(mut holder: Child) {
    drop(holder.stdin.take());
    holder.wait().unwrap();
}

const WRITE: &str = "printf changed 1<>\"$1\"";

#[test]
fn writing_to_a_program_takes_its_rights_off_whoever_has_it_open() {
    for flags in [&[][..], &["--no-passthrough"]] {
        let Some(mount) = shared_mount(flags) else { return };
        // A reader from before, who must not make the writer invisible.
        let program = file_with_mode(&mount, "setuid", 0o4777);
        let reader = File::open(&program).unwrap();
        assert!(succeeds(NOBODY, NOBODY, WRITE, &program));
        assert_eq!(mode(&program), 0o777, "{flags:?}");
        let mut seen = [0; 9];
        reader.read_exact_at(&mut seen, 0).unwrap();
        assert_eq!(&seen, b"changedam");
        drop(reader);

        // The bits come while a reader has it open already.
        let program = file_with_mode(&mount, "later", 0o777);
        let reader = File::open(&program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o6777)).unwrap();
        assert!(succeeds(NOBODY, NOBODY, WRITE, &program));
        assert_eq!(mode(&program), 0o777, "{flags:?}");
        reader.read_exact_at(&mut seen, 0).unwrap();
        assert_eq!(&seen, b"changedam");
        drop(reader);
        assert_eq!(fs::read(&program).unwrap(), b"changedam");

        // Truncating is writing.
        let program = file_with_mode(&mount, "truncated", 0o4777);
        assert!(succeeds(NOBODY, NOBODY, ": > \"$1\"", &program));
        assert_eq!(mode(&program), 0o777, "{flags:?}");
    }
}

#[test]
fn a_file_gives_no_rights_while_another_user_writes_to_it_unseen() {
    let Some(mount) = shared_mount(&[]) else { return };
    let program = file_with_mode(&mount, "program", 0o777);
    let holder = hold_open(&program);
    let set = fs::set_permissions(&program, fs::Permissions::from_mode(0o4777));
    let seen = mode(&program);
    let passed = mount.status()["passthrough_opens"].as_u64().unwrap() > 0;
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let give = || rustix::fs::setxattr(&program, "security.capability", &capability, XattrFlags::empty());
    let given = give();
    let_go(holder);
    if can_run(passed, "without passthrough every write is seen") {
        assert_eq!(set.unwrap_err().raw_os_error(), Some(Errno::BUSY.raw_os_error()));
        assert_eq!(seen, 0o777);
        assert_eq!(given, Err(Errno::BUSY));
    }
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4777)).unwrap();
    assert_eq!(mode(&program), 0o4777, "it is let go");
    give().unwrap();
    assert!(succeeds(NOBODY, NOBODY, WRITE, &program));
    assert_eq!(mode(&program), 0o777);
    assert_eq!(rustix::fs::getxattr(&program, "security.capability", &mut [0; 64][..]), Err(Errno::NODATA));

    // Who writes it themselves may: that is how programs are installed.
    let program = mount.join("installed");
    let writer = OpenOptions::new().create_new(true).write(true).open(&program).unwrap();
    writer.write_all_at(b"a program", 0).unwrap();
    writer.set_permissions(fs::Permissions::from_mode(0o4755)).unwrap();
    drop(writer);
    assert_eq!(mode(&program), 0o4755);
}

/// A list of access rights as the kernel takes it: tags, permissions, and the users that some are for.
fn access_list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const NO_ID: u32 = u32::MAX;
const OWNER: u16 = 1;
const USER: u16 = 2;
const OWNING_GROUP: u16 = 4;
const MASK: u16 = 16;
const OTHERS: u16 = 32;

#[test]
fn lists_of_access_rights_are_obeyed() {
    for flags in [&[][..], &["--no-passthrough"]] {
        let Some(mount) = shared_mount(flags) else { return };
        let file = file_with_mode(&mount, "file", 0o600);
        std::os::unix::fs::chown(&file, Some(0), Some(GROUP)).unwrap();
        let list = access_list(&[
            (OWNER, 6, NO_ID),
            (USER, 4, SOMEBODY),
            (OWNING_GROUP, 0, NO_ID),
            (MASK, 6, NO_ID),
            (OTHERS, 0, NO_ID),
        ]);
        let set = rustix::fs::setxattr(&file, "system.posix_acl_access", &list, XattrFlags::empty());
        if !can_run(set != Err(Errno::OPNOTSUPP), "the file system below keeps no lists of access rights") {
            return;
        }
        set.unwrap();
        let mut seen = [0; 200];
        let len = rustix::fs::getxattr(&file, "system.posix_acl_access", &mut seen[..]).unwrap();
        assert_eq!(seen[..len], list);
        assert_eq!(mode(&file), 0o660, "the mask shows as the group's bits");
        const READ: &str = "cat \"$1\" > /dev/null";
        assert!(succeeds(SOMEBODY, SOMEBODY, READ, &file), "{flags:?}: a user on the list");
        assert!(!succeeds(SOMEBODY, SOMEBODY, WRITE, &file), "{flags:?}: who may only read");
        assert!(
            !succeeds(NOBODY, GROUP, READ, &file),
            "{flags:?}: the mask was taken for the group's rights"
        );
        assert!(!succeeds(NOBODY, NOBODY, READ, &file), "{flags:?}");
    }
}

#[test]
fn a_default_list_takes_the_umasks_place() {
    for flags in [&[][..], &["--no-passthrough"]] {
        let Some(mount) = shared_mount(flags) else { return };
        const MAKE: &str = "umask 077; : > \"$1/file\"; mkdir \"$1/dir\"; mkfifo \"$1/pipe\"";
        let modes = |dir: &Path| ["file", "dir", "pipe"].map(|name| mode(&dir.join(name)));
        let without = mount.join("without");
        fs::create_dir(&without).unwrap();
        fs::set_permissions(&without, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(succeeds(NOBODY, NOBODY, MAKE, &without));
        assert_eq!(modes(&without), [0o600, 0o700, 0o600], "{flags:?}");

        let with = mount.join("with");
        fs::create_dir(&with).unwrap();
        fs::set_permissions(&with, fs::Permissions::from_mode(0o777)).unwrap();
        let list = access_list(&[
            (OWNER, 7, NO_ID),
            (USER, 7, SOMEBODY),
            (OWNING_GROUP, 5, NO_ID),
            (MASK, 7, NO_ID),
            (OTHERS, 5, NO_ID),
        ]);
        let set = rustix::fs::setxattr(&with, "system.posix_acl_default", &list, XattrFlags::empty());
        if !can_run(set != Err(Errno::OPNOTSUPP), "the file system below keeps no lists of access rights") {
            return;
        }
        set.unwrap();
        assert!(succeeds(NOBODY, NOBODY, MAKE, &with));
        assert_eq!(modes(&with), [0o664, 0o775, 0o664], "{flags:?}: the umask counted beside a default list");
        assert!(succeeds(SOMEBODY, SOMEBODY, "printf x >> \"$1/file\" && : > \"$1/dir/new\"", &with));
    }
}
