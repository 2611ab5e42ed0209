//! Bases come and go: what depends on them does not notice, and what nobody needs is given back.

use std::fs;

use mithril_tests::data::{Weights, digest};
use mithril_tests::mount::{Mount, drop_caches, text};

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
    let before = mount.used_bytes();
    mount.run(&["gc", "."]);
    assert!(mount.used_bytes() < before);
    mount.remount();
    for (name, hash) in &kept {
        assert_eq!(digest(&mount.join(name)), *hash, "{name}");
        assert!(mount.entry(name)["chain_depth"].as_u64().unwrap() <= 8);
    }
    mount.run(&["verify", "."]);
    // Nothing is left to give back.
    let again = mount.run(&["gc", "."]);
    assert!(again.starts_with("0 B given back"), "{again}");
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
