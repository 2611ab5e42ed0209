//! What docs/OPERATIONS.md says: mounting by mount(8), and what copies of the directory below are worth.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mithril_tests::data::Weights;
use mithril_tests::mount::{Mount, text};
use mithril_tests::{can_run, executable, is_root};

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts")
}

#[test]
fn the_mount_command_and_its_options_work() {
    if !can_run(is_root(), "mount(8) mounts for root only") {
        return;
    }
    let mount = Mount::unmounted(&[]);
    // What is installed for mount(8) is there in a namespace of our own only.
    let place = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(executable(), place.path().join("mithril-fs")).unwrap();
    let helper = fs::canonicalize(scripts().join("mount.fuse.mithril")).unwrap();
    fs::copy(helper, place.path().join("mount.fuse.mithril")).unwrap();
    let in_namespace = |script: &str| {
        // The mounts of others that the namespace began with would keep their daemons from ending.
        let script = format!(
            "umount -a -l -t fuse.mithril-fs
            mount -t overlay -o \"lowerdir=$2:/usr/sbin\" overlay /usr/sbin || exit 77
            {script}"
        );
        let mut program = Command::new("unshare");
        program.args(["--mount", "sh", "-c", &script, "sh"]).args([mount.path(), place.path()]);
        program.env("MITHRIL_FS_BIN", executable()).output().unwrap()
    };
    let has_sbin = fs::canonicalize("/sbin").is_ok_and(|path| path == Path::new("/usr/sbin"));
    let can_overlay = has_sbin && in_namespace("true").status.success();
    if !can_run(can_overlay, "nothing can be laid over /usr/sbin") {
        return;
    }
    for (options, hint) in
        [("ro", "ro is not supported"), ("frob=1", "unknown option: frob=1"), ("level=best", "--level")]
    {
        let refused = in_namespace(&format!(r#"mount -t fuse.mithril -o {options} "$1" "$1""#));
        assert!(!refused.status.success() && text(&refused).contains(hint), "{options}: {}", text(&refused));
    }
    let output = in_namespace(
        r#"set -e
        mount -t fuse.mithril -o 'noatime,nofail,allow_other,level=fast,settle=3600,exclude=*.tmp' "$1" "$1"
        grep "$1" /proc/self/mountinfo
        seq 1 50000 >"$1/a.tmp"
        "$MITHRIL_FS_BIN" ls "$1" || true
        umount "$1"
        ! grep -q "$1" /proc/self/mountinfo"#,
    );
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("plain: excluded"), "{}", text(&output));
    assert!(text(&output).contains("allow_other"), "{}", text(&output));
    assert_eq!(fs::read(mount.join("a.tmp")).unwrap().len(), 288_894, "below");
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let known = Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !can_run(known, "systemd-analyze is not installed") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(scripts().join("systemd/mithril-fs@.service")).unwrap();
    // It wants the program where it says.
    let here = unit.replace("/usr/local/bin/mithril-fs", executable().to_str().unwrap());
    let path = place.path().join("mithril-fs@ckpt.service");
    fs::write(&path, here).unwrap();
    let checked = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
    assert!(!text(&checked).contains("mithril-fs@ckpt"), "{}", text(&checked));
}

#[test]
fn copies_of_the_directory_below_are_refused() {
    let mut mount = Mount::new(&[]);
    fs::write(mount.join("w"), Weights::new(500_000, 1).bf16_file()).unwrap();
    mount.sync();
    mount.unmount();
    let mut tools = vec![("cp", "cp -a \"$1/.\" \"$2\"", true), ("cp", "cp -r \"$1/.\" \"$2\"", false)];
    tools.push(("tar", "tar -C \"$1\" -cf - . | tar -C \"$2\" -xf -", false));
    tools.push(("tar", "tar -C \"$1\" --xattrs --xattrs-include='*' -cf - . | tar -C \"$2\" --xattrs --xattrs-include='*' -xf -", true));
    tools.push(("rsync", "rsync -a \"$1/\" \"$2/\"", false));
    tools.push(("rsync", "rsync -aX \"$1/\" \"$2/\"", true));
    for (tool, script, keeps_attributes) in tools {
        if !can_run(Command::new(tool).arg("--version").output().is_ok(), &format!("{tool} is not installed"))
        {
            continue;
        }
        for keeps_store in [true, false] {
            let mut copy = Mount::unmounted(&[]);
            let copied = Command::new("sh")
                .args(["-c", script, "sh"])
                .args([mount.path(), copy.path()])
                .output()
                .unwrap();
            assert!(copied.status.success(), "{script}: {}", text(&copied));
            if !keeps_store {
                fs::remove_dir_all(copy.join(".mithril")).unwrap();
            }
            copy.mount();
            let read = fs::read(copy.join("w"));
            assert!(read.is_err(), "{script}, store {keeps_store}");
            // Those with attributes say more; both are told apart from files that somebody wrote so.
            let verified = copy.command(&["verify", "."]);
            assert_eq!(verified.status.code(), Some(5), "{script}");
            let said = String::from_utf8_lossy(&verified.stdout) + String::from_utf8_lossy(&verified.stderr);
            assert_eq!(said.contains("without attributes"), !keeps_attributes, "{script}: {said}");
            copy.command(&["pack", "w"]);
            assert!(!copy.is_packed("w") || keeps_attributes, "{script}");
            fs::write(copy.join("w"), b"new").unwrap();
            assert_eq!(fs::read(copy.join("w")).unwrap(), b"new", "{script}");
        }
    }
    // A backup through the mount is the bytes.
    mount.mount();
    let backup = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-a").args([&mount.join("w"), backup.path()]).status().unwrap();
    assert!(copied.success());
    assert!(fs::read(backup.path().join("w")).unwrap() == Weights::new(500_000, 1).bf16_file());
}
