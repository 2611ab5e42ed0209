//! `mithril-checkpoint` as its users call it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mithril_tests::data::Random;
use mithril_tests::executable;
use tempfile::TempDir;

const DAMAGED: i32 = 5;

fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    let program = executable().with_file_name("mithril-checkpoint");
    Command::new(program).args(arguments).current_dir(folder.path()).output().expect("it runs")
}

fn ok(folder: &TempDir, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(folder: &TempDir, arguments: &[&str]) -> (i32, String) {
    let output = run(folder, arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?}: {message}");
    (output.status.code().unwrap_or(-1), message)
}

/// A safetensors file of one fp32 matrix, moved a little from the step before.
fn checkpoint(step: u32) -> Vec<u8> {
    let mut random = Random::new(7);
    let weights = (0..400_000u32).flat_map(|i| {
        let noise = random.bytes(2);
        let value = f32::from(i16::from_le_bytes([noise[0], noise[1]])) / 1e6;
        (value + if i % 50 == 0 { 1e-5 * step as f32 } else { 0.0 }).to_le_bytes()
    });
    let header = br#"{"w":{"dtype":"F32","shape":[400,1000],"data_offsets":[0,1600000]}}     "#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.extend(weights);
    file
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for step in 1..=2 {
        fs::write(folder.path().join(format!("step{step}.safetensors")), checkpoint(step)).unwrap();
    }
    folder
}

#[test]
fn a_file_comes_back_with_its_mode_and_time() {
    let folder = folder();
    let path = folder.path().join("step1.safetensors");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    ok(&folder, &["compress", "step1.safetensors"]);
    let before = fs::metadata(&path).unwrap();
    let small = fs::metadata(folder.path().join("step1.safetensors.mcp")).unwrap();
    assert!(small.len() * 100 < before.len() * 95);
    fs::remove_file(&path).unwrap();
    ok(&folder, &["decompress", "step1.safetensors.mcp"]);
    assert!(fs::read(&path).unwrap() == checkpoint(1));
    let after = fs::metadata(&path).unwrap();
    assert_eq!((after.mode(), after.mtime_nsec()), (before.mode(), before.mtime_nsec()));
    ok(&folder, &["verify", "step1.safetensors.mcp"]);
}

#[test]
fn a_delta_finds_its_base_beside_it_or_says_what_it_wants() {
    let folder = folder();
    ok(&folder, &["compress", "step2.safetensors", "--base", "step1.safetensors", "-o", "two.mcp"]);
    ok(&folder, &["compress", "step2.safetensors", "-o", "alone.mcp"]);
    let len = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
    assert!(len("two.mcp") * 4 < len("alone.mcp"));
    ok(&folder, &["decompress", "two.mcp", "-o", "back"]);
    assert!(fs::read(folder.path().join("back")).unwrap() == checkpoint(2));
    let info: serde_json::Value = serde_json::from_str(&ok(&folder, &["info", "--json", "two.mcp"])).unwrap();
    assert_eq!(info["reference"]["name"], "step1.safetensors");
    assert_eq!(info["tensors"][0]["dtype"], "f32");
    assert!(ok(&folder, &["info", "two.mcp"]).contains("bytes by ratio"));

    // The compressed base does as well; another file does not.
    ok(&folder, &["compress", "step1.safetensors"]);
    fs::remove_file(folder.path().join("step1.safetensors")).unwrap();
    ok(&folder, &["verify", "two.mcp"]);
    fs::rename(folder.path().join("step1.safetensors.mcp"), folder.path().join("moved")).unwrap();
    let (_, message) = refused(&folder, &["decompress", "two.mcp", "-o", "again"]);
    assert!(message.contains("step1.safetensors") && message.contains("--base"), "{message}");
    ok(&folder, &["decompress", "two.mcp", "-o", "again", "--base", "moved"]);
    let (code, message) =
        refused(&folder, &["decompress", "two.mcp", "-o", "wrong", "--base", "step2.safetensors"]);
    assert_eq!(code, DAMAGED, "{message}");
    assert!(message.contains("reference is another file"), "{message}");
    assert!(!folder.path().join("wrong").exists(), "an output appears whole or not at all");
}

#[test]
fn pipes_work_both_ways() {
    let folder = folder();
    let program = executable().with_file_name("mithril-checkpoint");
    let through = |arguments: &[&str], input: &[u8]| {
        let mut child = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut stdin = child.stdin.take().expect("it is piped");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("it ends");
        writer.join().expect("no panic").expect("it reads all");
        assert!(output.status.success());
        output.stdout
    };
    let small = through(&["compress", "-"], &checkpoint(1));
    assert!(small.len() < checkpoint(1).len());
    assert!(through(&["decompress", "-"], &small) == checkpoint(1));
    assert!(through(&["decompress", "-"], &through(&["compress", "-", "-o", "-"], b"")).is_empty());
    drop(folder);
}

#[test]
fn a_directory_goes_and_comes_back_whole() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("run/a/b")).unwrap();
    fs::create_dir_all(at("old/a/b")).unwrap();
    fs::write(at("run/a/b/model.safetensors"), checkpoint(2)).unwrap();
    fs::write(at("old/a/b/model.safetensors"), checkpoint(1)).unwrap();
    fs::write(at("run/empty"), b"").unwrap();
    fs::write(at("run/config.json"), b"{\"layers\": 2}").unwrap();
    ok(&folder, &["compress", "-r", "run", "-o", "small", "--base", "old"]);
    assert!(fs::metadata(at("small/a/b/model.safetensors.mcp")).unwrap().len() < 400_000);
    ok(&folder, &["decompress", "-r", "small", "-o", "back", "--base", "old"]);
    for name in ["a/b/model.safetensors", "empty", "config.json"] {
        assert!(
            fs::read(at("run").join(name)).unwrap() == fs::read(at("back").join(name)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn an_index_stands_for_its_shards() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let index = |shards: &[&str]| {
        let map: serde_json::Map<_, _> =
            shards.iter().enumerate().map(|(i, shard)| (format!("w{i}"), (*shard).into())).collect();
        serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map }).to_string()
    };
    let name = "model.safetensors.index.json";
    // As a hub's cache has them: the files are elsewhere.
    fs::create_dir_all(at("run/more")).unwrap();
    fs::rename(at("step2.safetensors"), at("blob")).unwrap();
    std::os::unix::fs::symlink("../../blob", at("run/more/two.safetensors")).unwrap();
    fs::write(at("run/one.safetensors"), checkpoint(1)).unwrap();
    fs::write(at("run/unnamed.safetensors"), checkpoint(1)).unwrap();
    let shards = ["one.safetensors", "more/two.safetensors", "one.safetensors"];
    fs::write(at("run").join(name), index(&shards)).unwrap();
    let path = &format!("run/{name}")[..];

    let (_, message) = refused(&folder, &["compress", path]);
    assert!(message.contains("2 shards") && message.contains("-o"), "{message}");
    ok(&folder, &["compress", path, "-o", "small"]);
    assert!(at("small/one.safetensors.mcp").is_file() && !at("small/unnamed.safetensors.mcp").exists());
    ok(&folder, &["decompress", "-r", "small", "-o", "back"]);
    for name in ["one.safetensors", "more/two.safetensors", name] {
        assert!(
            fs::read(at("run").join(name)).unwrap() == fs::read(at("back").join(name)).unwrap(),
            "{name}"
        );
    }
    // The base is an index, or its directory; the working directory may be that of the index.
    for base in ["back", &format!("back/{name}")] {
        ok(&folder, &["compress", path, "-f", "-o", "deltas", "--base", base]);
        assert!(fs::metadata(at("deltas/more/two.safetensors.mcp")).unwrap().len() < 10_000);
    }
    fs::write(at(name), index(&["step1.safetensors"])).unwrap();
    ok(&folder, &["compress", name, "-o", "here"]);
    assert!(at("here/step1.safetensors.mcp").is_file());

    for (shard, why) in [
        ("missing.safetensors", "cannot be read"),
        ("more", "no regular file"),
        ("../step1.safetensors", "not below"),
        ("more/../../step1.safetensors", "not below"),
        (at("step1.safetensors").to_str().unwrap(), "not below"),
        ("", "not below"),
    ] {
        fs::write(at("run").join(name), index(&["one.safetensors", shard])).unwrap();
        let (_, message) = refused(&folder, &["compress", path, "-o", "none"]);
        assert!(message.contains(why) && message.contains(&format!("{shard:?}")), "{message}");
        assert!(!at("none").exists(), "nothing is written before all shards are there");
    }
    // What is only named like an index is a file.
    for text in ["{", "[]", "{\"weight_map\": 1}", "{}"] {
        fs::write(at("run").join(name), text).unwrap();
        ok(&folder, &["compress", path, "-f", "-o", "file.mcp"]);
        ok(&folder, &["decompress", "file.mcp", "-f", "-o", "file"]);
        assert_eq!(fs::read_to_string(at("file")).unwrap(), text);
    }
}

#[test]
fn holes_stay_holes() {
    let folder = folder();
    let file = File::create(folder.path().join("sparse")).unwrap();
    file.set_len(1 << 30).unwrap();
    file.write_all_at(&checkpoint(1), 600 << 20).unwrap();
    drop(file);
    ok(&folder, &["compress", "sparse"]);
    ok(&folder, &["decompress", "sparse.mcp", "-o", "back"]);
    let back = fs::metadata(folder.path().join("back")).unwrap();
    assert_eq!(back.len(), 1 << 30);
    assert!(back.blocks() * 512 < 8 << 20, "{} bytes are allocated", back.blocks() * 512);
    let mut bytes = vec![0; 1_600_000];
    File::open(folder.path().join("back")).unwrap().read_exact_at(&mut bytes, 600 << 20).unwrap();
    assert!(bytes == checkpoint(1)[..1_600_000]);
}

#[test]
fn a_gguf_file_is_seen_as_one() {
    let folder = folder();
    // One matrix of Q8_0, rows of 4096: a scale and 32 numbers a block.
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    let mut number = |value: u64, width: usize| file.extend_from_slice(&value.to_le_bytes()[..width]);
    number(1, 8);
    number(0, 8);
    number(1, 8);
    number(u64::from(b'w'), 1);
    for (value, width) in [(2, 4), (4096, 8), (300, 8), (8, 4), (0, 8)] {
        number(value, width);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    let data = Random::new(3).bytes(300 * 4096 / 32 * 34);
    file.extend_from_slice(&data);
    fs::write(folder.path().join("model.gguf"), &file).unwrap();
    let info: serde_json::Value =
        serde_json::from_str(&ok(&folder, &["info", "--json", "model.gguf"])).unwrap();
    assert_eq!((&info["container"], &info["tensors"][0]["name"]), (&"gguf".into(), &"w".into()));
    assert_eq!(info["tensors"][0]["shape"], serde_json::json!([300, 4096]));
    assert_eq!(info["tensors"][0]["bytes"], data.len());
    assert!(ok(&folder, &["info", "model.gguf"]).contains("gguf"));
    ok(&folder, &["compress", "model.gguf"]);
    ok(&folder, &["decompress", "model.gguf.mcp", "-o", "back"]);
    assert!(fs::read(folder.path().join("back")).unwrap() == file);
    let info: serde_json::Value =
        serde_json::from_str(&ok(&folder, &["info", "--json", "model.gguf.mcp"])).unwrap();
    assert_eq!(info["container"], "gguf");
}

#[test]
fn differences_are_told_tensor_by_tensor() {
    let folder = folder();
    let text = ok(&folder, &["diff", "--json", "step1.safetensors", "step2.safetensors"]);
    let changes: serde_json::Value = serde_json::from_str(&text).unwrap();
    let changed = changes[0]["changed"].as_f64().unwrap();
    assert!((changed - 0.02).abs() < 0.001, "{changed}");
    assert_eq!(changes[0]["state"], "changed");
    assert!(ok(&folder, &["diff", "step1.safetensors", "step1.safetensors"]).contains("same"));
}

#[test]
fn bad_input_gets_a_clear_error_and_nothing_is_lost() {
    let folder = folder();
    ok(&folder, &["compress", "step1.safetensors"]);
    let there = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let before = there("step1.safetensors.mcp");
    let (_, message) = refused(&folder, &["compress", "step2.safetensors", "-o", "step1.safetensors.mcp"]);
    assert!(message.contains("--force"), "{message}");
    assert!(there("step1.safetensors.mcp") == before);
    let (_, message) = refused(&folder, &["decompress", "step2.safetensors", "-o", "x"]);
    assert!(message.contains("no compressed checkpoint"), "{message}");
    let (_, message) = refused(&folder, &["compress", "missing"]);
    assert!(message.contains("missing"), "{message}");
    let (_, message) = refused(&folder, &["compress", "."]);
    assert!(message.contains("-r"), "{message}");
    let (code, message) = refused(&folder, &["compress", "step1.safetensors", "--level", "best"]);
    assert!(code == 2 && message.contains("fast, default or max"), "{message}");

    let mut damaged = before.clone();
    damaged[400_000] ^= 1;
    fs::write(folder.path().join("damaged.mcp"), &damaged).unwrap();
    fs::write(folder.path().join("cut.mcp"), &before[..before.len() / 2]).unwrap();
    for name in ["damaged.mcp", "cut.mcp"] {
        assert_eq!(refused(&folder, &["verify", name]).0, DAMAGED, "{name}");
        assert_eq!(refused(&folder, &["decompress", name, "-o", "x"]).0, DAMAGED, "{name}");
    }
    // No half-written file stays behind.
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| Path::new(name) == Path::new("x")), "{left:?}");
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with('.')), "{left:?}");
}

#[test]
fn first_moments_are_told_by_the_second_ones_if_there_is_time() {
    let folder = tempfile::tempdir().unwrap();
    let golden = "../mithril-engine/tests/golden/moments.mcp";
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(golden), folder.path().join("golden.mcp")).unwrap();
    ok(&folder, &["decompress", "golden.mcp", "-o", "moments"]);
    for (level, expected) in [("default", false), ("max", true)] {
        ok(&folder, &["compress", "moments", "-o", "new.mcp", "--level", level, "--force"]);
        assert_eq!(ok(&folder, &["info", "new.mcp"]).contains("float by moments"), expected, "{level}");
        ok(&folder, &["verify", "new.mcp"]);
        ok(&folder, &["decompress", "new.mcp", "-o", "back", "--force"]);
        assert!(
            fs::read(folder.path().join("back")).unwrap() == fs::read(folder.path().join("moments")).unwrap()
        );
    }
}

#[test]
fn rounding_needs_a_bound_and_keeps_to_it() {
    let folder = folder();
    let (code, message) = refused(&folder, &["compress", "step1.safetensors", "--lossy", "int8"]);
    assert!(code == 2 && message.contains("--max-error"), "{message}");
    let (code, _) = refused(&folder, &["compress", "step1.safetensors", "--max-error", "1"]);
    assert_eq!(code, 2);
    ok(&folder, &["compress", "step1.safetensors", "-o", "exact.mcp"]);
    for scheme in ["int8", "fp8-e4m3", "fp8-e5m2", "fp16", "bf16"] {
        ok(
            &folder,
            &[
                "compress",
                "step1.safetensors",
                "-f",
                "-o",
                "small.mcp",
                "--lossy",
                scheme,
                "--max-error",
                "1e-4",
            ],
        );
        ok(&folder, &["decompress", "small.mcp", "-f", "-o", "back"]);
        let (old, new) = (checkpoint(1), fs::read(folder.path().join("back")).unwrap());
        let data = old.len() - 1_600_000;
        assert_eq!(old[..data], new[..data]);
        let floats = |bytes: &[u8]| -> Vec<f32> {
            bytes[data..].chunks(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect()
        };
        let errors = floats(&old).into_iter().zip(floats(&new)).map(|(a, b)| (a - b).abs());
        let largest = errors.fold(0.0, f32::max);
        assert!(largest > 0.0 && largest <= 1e-4, "{scheme}: {largest}");
        let info: serde_json::Value =
            serde_json::from_str(&ok(&folder, &["info", "--json", "small.mcp"])).unwrap();
        assert_eq!(info["losses"][0]["scheme"], scheme);
        assert!((info["losses"][0]["max_error"].as_f64().unwrap() - f64::from(largest)).abs() < 1e-9);
    }
    ok(
        &folder,
        &[
            "compress",
            "step1.safetensors",
            "-f",
            "-o",
            "small.mcp",
            "--lossy",
            "int8",
            "--max-relative-error",
            "0.01",
            "--per-channel",
        ],
    );
    let len = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
    assert!(len("small.mcp") * 3 < len("exact.mcp"), "{} of {}", len("small.mcp"), len("exact.mcp"));
}
