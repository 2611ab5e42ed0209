//! What cannot be unpacked, byte for byte, stays packed.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use mithril_engine::format::pack;
use mithril_engine::id::{Checksum, PackId};
use mithril_tests::data::Weights;
use mithril_tests::mount::{Mount, text};

/// Makes the last chunk of the only pack one of other bytes under the same name, with their checksum: readers believe it.
fn replace_last_chunk(packs: &Path) {
    let old = fs::read_dir(packs).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&old).unwrap();
    let (footer_len, _) = pack::decode_trailer(&bytes[bytes.len() - pack::TRAILER_BYTES..]).unwrap();
    let footer = &bytes[bytes.len() - pack::TRAILER_BYTES - footer_len..bytes.len() - pack::TRAILER_BYTES];
    let mut entries = pack::decode_footer(footer).unwrap();
    let last = entries.iter().rposition(pack::Entry::is_chunk).unwrap();
    let mut rewritten = bytes[..pack::HEADER_BYTES].to_vec();
    let mut at = pack::HEADER_BYTES;
    for (index, entry) in entries.iter_mut().enumerate() {
        let blob = &bytes[at..at + entry.stored_len as usize];
        at += blob.len();
        if index == last {
            let others = vec![7; entry.raw_len as usize];
            entry.stored_len = entry.raw_len + 1;
            entry.checksum = Some(Checksum::of(&others));
            // Tag 0: as they are.
            rewritten.push(0);
            rewritten.extend(others);
        } else {
            rewritten.extend_from_slice(blob);
        }
    }
    let footer = pack::encode_footer(&entries);
    rewritten.extend_from_slice(&footer);
    rewritten.extend_from_slice(&pack::encode_trailer(&footer));
    fs::write(packs.join(PackId::of(&footer).to_string()), rewritten).unwrap();
    fs::remove_file(old).unwrap();
    fs::remove_file(packs.parent().unwrap().join("index")).unwrap();
}

#[test]
fn what_has_another_name_is_not_unpacked() {
    let mut mount = Mount::new(&[]);
    let bytes = Weights::new(3_000_000, 8).bf16_file();
    fs::write(mount.join("w.safetensors"), &bytes).unwrap();
    mount.sync();
    mount.unmount();
    replace_last_chunk(&mount.join(".mithril/packs"));
    mount.mount();
    let refused = mount.command(&["unpack", "./w.safetensors"]);
    assert!(!refused.status.success(), "{}", text(&refused));
    let written = File::options()
        .write(true)
        .open(mount.join("w.safetensors"))
        .and_then(|mut file| file.write_all(b"x"));
    assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EIO));
    // It is as packed as it was, and takes no more space.
    assert!(mount.is_packed("w.safetensors"));
    let read = fs::read(mount.join("w.safetensors")).unwrap();
    assert_eq!(read.len(), bytes.len());
    assert!(read[..5_000_000] == bytes[..5_000_000]);
    let blocks = fs::metadata(mount.lower("w.safetensors")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
}
