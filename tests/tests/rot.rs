//! A flipped bit or a lost end, anywhere in what the directory keeps: every file reads as it was or not at all, and
//! `verify` names those that do not.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use mithril_tests::data::{Random, Weights};
use mithril_tests::mount::{Mount, text};
use mithril_tests::rounds;

/// Places that are damaged, of each kind.
const PLACES: usize = 25;

/// A mount with files in several formats, and how they were written.
struct Patient {
    mount: Mount,
    files: Vec<(&'static str, Vec<u8>)>,
    random: Random,
}

/// What a damage did.
#[derive(Default, Debug)]
struct Outcome {
    intact: usize,
    refused: usize,
}

impl Patient {
    /// With the mount taken down.
    fn new(seed: u64) -> Self {
        let mut mount = Mount::new(&["--level", "max"]);
        let mut weights = Weights::new(60_000, seed);
        let mut files = vec![("run/step_1.safetensors", weights.bf16_file())];
        weights.step(1e-4);
        files.push(("run/step_2.safetensors", weights.bf16_file()));
        weights.step(1e-3);
        files.push(("masters.safetensors", weights.fp32_file()));
        let text: String =
            (0..20_000).map(|line| format!("{{\"line\": {line}, \"of\": \"a log\"}}\n")).collect();
        files.push(("log.jsonl", text.into_bytes()));
        fs::create_dir(mount.join("run")).unwrap();
        for (name, bytes) in &files {
            fs::write(mount.join(name), bytes).unwrap();
            mount.sync();
            assert!(mount.is_packed(name), "{name} is plain");
        }
        mount.unmount();
        Self { mount, files, random: Random::new(seed) }
    }

    fn place(&mut self, len: usize) -> usize {
        let len = len as u64;
        // Headers and footers are short: half of the places are near an end.
        let place = match self.random.below(4) {
            0 => self.random.below(len.min(64)),
            1 => len - 1 - self.random.below(len.min(400)),
            _ => self.random.below(len),
        };
        usize::try_from(place).expect("it is within a file")
    }

    /// Mounts, reads everything, asks `verify`, and unmounts.
    fn examine(&mut self, what: &str) -> Outcome {
        self.mount.mount();
        let mut outcome = Outcome::default();
        let mut unreadable = Vec::new();
        for (name, bytes) in &self.files {
            match fs::read(self.mount.join(name)) {
                Ok(read) => {
                    assert!(read == *bytes, "{what}: wrong bytes in {name}");
                    outcome.intact += 1;
                }
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{what}: {name}: {error}");
                    unreadable.push(*name);
                    outcome.refused += 1;
                }
            }
        }
        let verified = self.mount.command(&["verify", "."]);
        let (code, said) = (verified.status.code(), text(&verified));
        for name in &unreadable {
            assert!(code == Some(5) && said.contains(name), "{what}: {name} is not named: {code:?} {said}");
        }
        if !unreadable.is_empty() {
            let status = self.mount.run(&["status", "."]);
            for name in &unreadable {
                assert!(status.contains(name), "{what}: the errors do not name {name}: {status}");
            }
        }
        self.mount.unmount();
        outcome
    }

    /// Damages a file of the store at many places, one at a time.
    fn damage(&mut self, path: &PathBuf, what: &str, change: fn(&mut Vec<u8>, usize)) -> Outcome {
        let good = fs::read(path).unwrap();
        let mut all = Outcome::default();
        for _ in 0..rounds(PLACES) {
            let at = self.place(good.len());
            let mut damaged = good.clone();
            change(&mut damaged, at);
            fs::write(path, &damaged).unwrap();
            let outcome = self.examine(&format!("{what} at {at} of {}", path.display()));
            all.intact += outcome.intact;
            all.refused += outcome.refused;
            fs::write(path, &good).unwrap();
        }
        all
    }

    fn store(&self, name: &str) -> PathBuf {
        self.mount.lower(&format!(".mithril/{name}"))
    }

    fn packs(&self) -> Vec<PathBuf> {
        let names = fs::read_dir(self.store("packs")).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| self.store("packs").join(name)).collect()
    }
}

fn flip(bytes: &mut [u8], at: usize) {
    bytes[at] ^= 1 << (at % 8);
}

fn cut(bytes: &mut Vec<u8>, at: usize) {
    bytes.truncate(at);
}

#[test]
fn a_flipped_bit_in_a_pack_gives_no_wrong_byte() {
    let mut patient = Patient::new(1);
    let packs = patient.packs();
    let at = usize::try_from(patient.random.below(packs.len() as u64)).unwrap();
    let outcome = patient.damage(&packs[at], "a flipped bit", |bytes, at| flip(bytes, at));
    assert!(outcome.refused > 0 && outcome.intact > 0, "{outcome:?}");
    // The rest of the store is as it was.
    assert_eq!(patient.examine("mended").refused, 0);
}

#[test]
fn a_pack_that_lost_its_end_gives_no_wrong_byte() {
    let mut patient = Patient::new(2);
    let packs = patient.packs();
    let at = usize::try_from(patient.random.below(packs.len() as u64)).unwrap();
    let outcome = patient.damage(&packs[at], "cut off", cut);
    assert!(outcome.refused > 0, "{outcome:?}");
    assert_eq!(patient.examine("mended").refused, 0);
}

#[test]
fn a_damaged_index_costs_nothing() {
    let mut patient = Patient::new(3);
    let index = patient.store("index");
    assert_eq!(patient.damage(&index, "a flipped bit", |bytes, at| flip(bytes, at)).refused, 0);
    assert_eq!(patient.damage(&index, "cut off", cut).refused, 0);
}

#[test]
fn a_damaged_stub_is_an_error_or_does_not_matter() {
    let mut patient = Patient::new(4);
    let names: Vec<&str> = patient.files.iter().map(|(name, _)| *name).collect();
    let keys = ["trusted.mithril", "user.mithril"];
    let mut refused = 0;
    for round in 0..rounds(PLACES) {
        let name = names[round % names.len()];
        let path = patient.mount.lower(name);
        // The attribute, and then the bytes below.
        let mut value = [0u8; 256];
        let (key, len) = keys
            .iter()
            .find_map(|key| Some((*key, rustix::fs::getxattr(&path, *key, &mut value[..]).ok()?)))
            .expect("a packed file has our attribute");
        let mut damaged = value[..len].to_vec();
        let bit = usize::try_from(patient.random.below(8 * len as u64)).unwrap();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let set = |value: &[u8]| {
            rustix::fs::setxattr(&path, key, value, rustix::fs::XattrFlags::empty()).expect("it is set");
        };
        set(&damaged);
        refused += patient.examine(&format!("bit {bit} of the attribute of {name}")).refused;
        set(&value[..len]);
        let stub = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let at = patient.random.below(4096);
        let mut byte = [0];
        stub.read_exact_at(&mut byte, at).unwrap();
        stub.write_all_at(&[byte[0] ^ 1 << (at % 8)], at).unwrap();
        drop(stub);
        let outcome = patient.examine(&format!("byte {at} of the stub of {name}"));
        assert_eq!(outcome.refused, 0, "byte {at} of the stub of {name}");
    }
    assert!(refused > 0, "no damage to an attribute was noticed");
    assert_eq!(patient.examine("mended").refused, 0);
}
