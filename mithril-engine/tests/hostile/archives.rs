//! Zip archives.

use mithril_engine::tensor::{Container, Layout, inspect};

use super::allocations::most_held;
use super::pickler::Pickler;
use super::reading::Counted;
use super::zip::Zip;

/// Bytes that are read of any file for its directories, those that are held for them, and how often something is read.
const DIRECTORY_BYTES: usize = 64 << 20;
const MEMBERS: u64 = 1 << 19;

struct Looked {
    layout: Layout,
    held: usize,
    read: u64,
    reads: u64,
}

fn look(file: &[u8]) -> Looked {
    let source = Counted::new(file);
    let (held, layout) = most_held(|| inspect(&source).unwrap());
    Looked { layout, held, read: source.read(), reads: source.reads() }
}

/// A pickle of one matrix.
fn pickle() -> Vec<u8> {
    let mut pickler = Pickler::new();
    pickler.matrix("0", 2, 2);
    pickler.finish()
}

#[test]
fn a_directory_of_a_million_members_is_not_looked_at() {
    // Twice as many as are looked at, and twice as long a directory as is read.
    for (name, why) in [("m", "too many members"), (&"m".repeat(100)[..], "directory is too long")] {
        let mut zip = Zip::default();
        zip.add("a/data.pkl", &pickle());
        (0..2 * MEMBERS).for_each(|_| zip.enter(name, 0, 0));
        let looked = look(&zip.finish());
        assert_eq!(looked.layout.container, Container::Unknown);
        assert!(
            looked.layout.note.as_ref().is_some_and(|note| note.contains(why)),
            "{:?}",
            looked.layout.note
        );
        assert!(looked.held < 2 * DIRECTORY_BYTES, "{} bytes held", looked.held);
        assert!(looked.read < 2 * DIRECTORY_BYTES as u64 + (1 << 20), "{} bytes read", looked.read);
        assert!(looked.reads < 200, "{} reads", looked.reads);
    }
}

#[test]
fn only_members_that_are_tensors_are_read() {
    let mut zip = Zip::default();
    zip.add("a/data.pkl", &pickle());
    zip.add("a/data/0", &[1; 16]);
    for index in 0..200_000 {
        zip.enter(&format!("a/data/x{index}"), 0, 0);
    }
    let looked = look(&zip.finish());
    assert_eq!((looked.layout.container, looked.layout.tensors.len()), (Container::TorchZip, 1));
    assert!(looked.reads < 20, "{} reads", looked.reads);
}

#[test]
fn one_header_is_not_read_for_every_array() {
    let header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }}{}\n", " ".repeat(60_000));
    let mut array = b"\x93NUMPY\x01\0".to_vec();
    array.extend_from_slice(&u16::try_from(header.len()).unwrap().to_le_bytes());
    array.extend_from_slice(header.as_bytes());
    array.extend_from_slice(&[1; 16]);
    let mut zip = Zip::default();
    zip.add("0.npy", &array);
    let len = u32::try_from(array.len()).unwrap();
    (0..100_000).for_each(|_| zip.enter("0.npy", len, 0));
    let file = zip.finish();
    let looked = look(&file);
    assert_eq!(looked.layout.container, Container::Unknown, "they overlap");
    // Two directories and once the file, and the first 12 bytes and the local header of each member.
    let most = 3 * file.len() as u64 + 100_000 * 42 + (1 << 20);
    assert!(looked.read < most, "{} bytes read of {}", looked.read, file.len());
}

#[test]
fn comments_of_many_archives_are_not_all_read() {
    let mut file = Vec::new();
    for _ in 0..10_000 {
        let mut zip = Zip::default();
        zip.add("a", b"");
        file.extend(zip.finish());
        // A comment, so that the end record is not the last there is.
        let at = file.len() - 2;
        file[at..].copy_from_slice(&1u16.to_le_bytes());
        file.push(b'.');
    }
    let looked = look(&file);
    assert!(looked.layout.note.is_some_and(|note| note.contains("directory is too long")));
    assert!(looked.read < DIRECTORY_BYTES as u64 + (3 << 20), "{} bytes read", looked.read);
}

#[test]
fn archives_do_not_share_a_pickle() {
    let mut pickler = Pickler::new();
    pickler.op(b"]");
    (0..1 << 20).for_each(|_| pickler.op(b"NN0"));
    let pickle = pickler.finish();
    let mut zip = Zip::default();
    zip.add("a/data.pkl", &pickle);
    let last = zip.finish();
    // Each archive has the same member, that of the last one, behind its own end.
    let mut archive = Zip::default();
    archive.add("x", b"");
    let archive_len = archive.finish().len() + 46 + "a/data.pkl".len();
    let mut file = Vec::new();
    for left in (1..=1000).rev() {
        let mut archive = Zip::default();
        archive.add("x", b"");
        let offset = u32::try_from(left * archive_len).unwrap();
        archive.enter("a/data.pkl", u32::try_from(pickle.len()).unwrap(), offset);
        file.extend(archive.finish());
    }
    assert_eq!(file.len(), 1000 * archive_len);
    file.extend(last);
    let looked = look(&file);
    assert!(looked.read < 2 * file.len() as u64, "{} bytes read of {}", looked.read, file.len());
}
