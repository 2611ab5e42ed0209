//! Bases come and go: what depends on them does not notice, and what nobody needs is given back.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsFd;

use mithril_engine::format::manifest::Extent;
use mithril_engine::id::ManifestId;
use mithril_engine::store::Store;
use mithril_tests::data::{Weights, digest};
use mithril_tests::mount::{Mount, drop_caches, text};

/// Where stubs say which manifest is theirs, with privileges and without.
const ATTRIBUTES: [&str; 2] = ["trusted.mithril", "user.mithril"];

#[test]
fn a_dependant_outlives_its_base() {
    let mut mount = Mount::new(&[]);
    let mut weights = Weights::new(400_000, 1);
    let first = weights.bf16_file();
    weights.step(1e-5);
    let second = weights.bf16_file();
    fs::write(mount.join("step_1.safetensors"), &first).unwrap();
    fs::write(mount.join("step_2.safetensors"), &second).unwrap();
    fs::write(mount.join("other.safetensors"), Weights::new(400_000, 9).fp32_file()).unwrap();
    mount.sync();
    assert_eq!(mount.entry("step_2.safetensors")["chain_depth"], 1);
    let full = mount.used_bytes();
    fs::remove_file(mount.join("step_1.safetensors")).unwrap();
    fs::remove_file(mount.join("other.safetensors")).unwrap();
    let foretold = mount.run(&["gc", ".", "--dry-run"]);
    assert!(foretold.contains("would be given back"), "{foretold}");
    assert!(mount.used_bytes() > full * 9 / 10, "a dry run gave something back");
    mount.run(&["gc", "."]);
    // fp32 noise of 1.6 MB is gone, the base of the dependant is not.
    assert!(mount.used_bytes() + 1_200_000 < full, "{} of {full}", mount.used_bytes());
    drop_caches();
    assert!(fs::read(mount.join("step_2.safetensors")).unwrap() == second);
    mount.remount();
    assert!(fs::read(mount.join("step_2.safetensors")).unwrap() == second);
    mount.run(&["verify", "."]);
    fs::remove_file(mount.join("step_2.safetensors")).unwrap();
    mount.run(&["gc", "."]);
    assert!(mount.used_bytes() < 40_000, "{} bytes are left of nothing", mount.used_bytes());
}

/// What is in a store, and what of it no file needs: counted by itself, not by what the collector says.
#[derive(Debug)]
struct Census {
    packs: u64,
    chunks: u64,
    dead_chunks: u64,
    dead_manifests: u64,
}

/// Looks at the store of a directory that is not mounted, and at the stubs of all packed files in it.
fn census(mount: &Mount, files: &[String]) -> Census {
    let store = Store::open(fs::File::open(mount.lower(".mithril")).unwrap().as_fd()).unwrap();
    let manifest_of = |name: &String| {
        let mut stub = [0; 64];
        let read = |name: &str, stub: &mut [u8]| rustix::fs::getxattr(mount.lower(name), ATTRIBUTES[0], stub);
        let read = |stub: &mut [u8]| {
            read(name, stub).or_else(|_| rustix::fs::getxattr(mount.lower(name), ATTRIBUTES[1], stub))
        };
        assert_eq!(read(&mut stub[..]), Ok(64), "{name} is packed");
        ManifestId::from_bytes(stub[8..40].try_into().unwrap())
    };
    let manifests: HashSet<ManifestId> = files.iter().map(manifest_of).collect();
    let mut chunks = HashSet::new();
    for manifest in &manifests {
        for extent in store.read_manifest(manifest).unwrap().extents {
            let Extent::Chunk { id, .. } = extent else { continue };
            let mut needed = Some(id);
            while let Some(id) = needed.filter(|id| chunks.insert(*id)) {
                needed = store.chunk(&id).expect("what a file needs is there").base;
            }
        }
    }
    let usage = store.usage();
    let packs = fs::read_dir(mount.lower(".mithril/packs")).unwrap().count() as u64;
    assert_eq!(packs, usage.packs);
    Census {
        packs,
        chunks: usage.chunks,
        dead_chunks: usage.chunks - chunks.len() as u64,
        dead_manifests: usage.manifests - manifests.len() as u64,
    }
}

#[test]
fn the_last_three_of_twenty_stay_readable_and_small() {
    let mut mount = Mount::new(&[]);
    let mut weights = Weights::new(200_000, 2);
    let mut kept = Vec::new();
    for step in 1..=20 {
        weights.step(1e-5);
        let dir = format!("checkpoint-{step}");
        fs::create_dir(mount.join(&dir)).unwrap();
        let name = format!("{dir}/model.safetensors");
        fs::write(mount.join(&name), weights.bf16_file()).unwrap();
        kept.push((name, blake3::hash(&weights.bf16_file())));
        mount.sync();
        if kept.len() > 3 {
            let (old, _) = kept.remove(0);
            fs::remove_dir_all(mount.join(&old).parent().unwrap()).unwrap();
        }
    }
    let names: Vec<String> = kept.iter().map(|(name, _)| name.clone()).collect();
    mount.unmount();
    let before = census(&mount, &names);
    mount.mount();
    let foretold = mount.json(&["gc", ".", "--dry-run", "--json"]);
    let given_back = mount.json(&["gc", ".", "--json"]);
    let again = mount.json(&["gc", ".", "--dry-run", "--json"]);
    mount.unmount();
    let after = census(&mount, &names);
    // Each file is a chunk in a pack of its own, and a header that is the same in all. Of the kept ones, the first has
    // a chain of at most 8 under it.
    assert_eq!((before.packs, before.dead_manifests), (20, 17));
    assert!(before.dead_chunks > 0, "{before:?}");
    assert_eq!((after.dead_chunks, after.chunks), (0, before.chunks - before.dead_chunks), "{after:?}");
    assert!(after.packs <= after.chunks && after.chunks <= 1 + 3 + 8, "{after:?}");
    assert_eq!(given_back, foretold);
    assert_eq!(given_back["deleted_packs"].as_u64().unwrap(), before.packs - after.packs);
    assert!(given_back["freed_bytes"].as_u64().unwrap() * 2 > given_back["kept_bytes"].as_u64().unwrap());
    // Less than a block in packs of which the rest is needed is not worth the rewriting: there the old manifests are.
    let rest = ["deleted_packs", "rewritten_packs", "freed_bytes"].map(|name| again[name].as_u64().unwrap());
    assert_eq!(rest, [0; 3], "{again}");
    assert_eq!(again["dead_blobs"].as_u64().unwrap(), after.dead_manifests, "{after:?}");
    mount.mount();
    for (name, hash) in &kept {
        assert_eq!(digest(&mount.join(name)), *hash, "{name}");
        assert!(mount.entry(name)["chain_depth"].as_u64().unwrap() <= 8);
    }
    mount.run(&["verify", "."]);
}

#[test]
fn overwriting_and_renaming_a_base_harms_nobody() {
    let mount = Mount::new(&[]);
    let mut weights = Weights::new(200_000, 3);
    fs::write(mount.join("step_1.safetensors"), weights.bf16_file()).unwrap();
    weights.step(1e-5);
    let second = weights.bf16_file();
    fs::write(mount.join("step_2.safetensors"), &second).unwrap();
    mount.sync();
    assert_eq!(mount.entry("step_2.safetensors")["chain_depth"], 1);
    fs::write(mount.join("step_1.safetensors"), b"overwritten").unwrap();
    mount.run(&["gc", "."]);
    drop_caches();
    assert!(fs::read(mount.join("step_2.safetensors")).unwrap() == second);
    fs::rename(mount.join("step_1.safetensors"), mount.join("elsewhere")).unwrap();
    fs::rename(mount.join("step_2.safetensors"), mount.join("renamed")).unwrap();
    mount.run(&["gc", "."]);
    drop_caches();
    assert!(fs::read(mount.join("renamed")).unwrap() == second);
}

#[test]
fn a_collection_that_breaks_off_says_what_it_did() {
    let mount = Mount::new(&[]);
    // Chunks of a MiB, as files of unknown content are cut: those of safetensors files without their headers.
    let chunk = |seed| -> Vec<u8> {
        let mut file = Weights::new(1 << 19, seed).bf16_file();
        file.split_off(file.len() - (1 << 20))
    };
    let (shared, other) = (chunk(4), [chunk(4), chunk(5)].concat());
    for (name, bytes) in
        [("alone", chunk(6)), ("first", [&shared[..], &chunk(7)].concat()), ("second", other)]
    {
        fs::write(mount.join(name), bytes).unwrap();
        mount.sync();
    }
    let expected = fs::read(mount.join("second")).unwrap();
    fs::remove_file(mount.join("alone")).unwrap();
    fs::remove_file(mount.join("first")).unwrap();
    // The names that the daemon's next packs would have until they are finished.
    let taken = |serial: u32| mount.lower(&format!(".mithril/packs/tmp-{}-{serial}", mount.daemon()));
    let taken: Vec<_> = (0..50).map(taken).collect();
    taken.iter().for_each(|path| fs::write(path, []).unwrap());
    let broken_off = mount.command(&["gc", "."]);
    assert_eq!(broken_off.status.code(), Some(1));
    let said = text(&broken_off);
    assert!(
        said.contains("only a part was collected") && said.contains("1 packs deleted, 0 rewritten"),
        "{said}"
    );
    let nothing = text(&mount.command(&["gc", "."]));
    assert!(nothing.contains("nothing was collected"), "{nothing}");
    taken.iter().for_each(|path| fs::remove_file(path).unwrap());
    let said = mount.run(&["gc", "."]);
    assert!(said.contains("0 packs deleted, 1 rewritten"), "{said}");
    drop_caches();
    assert!(fs::read(mount.join("second")).unwrap() == expected);
}
