use proptest::prelude::*;

use super::*;

/// A safetensors file with this header and so many bytes of data.
fn safetensors_with(header: &str, data_len: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend(std::iter::repeat_n(0u8, data_len));
    file
}

fn layout(file: &[u8]) -> Layout {
    inspect(&file).unwrap()
}

#[test]
fn safetensors_of_the_library_are_read() {
    use ::safetensors::{Dtype, serialize, tensor::TensorView};
    let data = vec![1u8; 48];
    let views = [
        ("b", TensorView::new(Dtype::F32, vec![3, 4], &data).unwrap()),
        ("scalar", TensorView::new(Dtype::BF16, vec![], &data[..2]).unwrap()),
        ("empty", TensorView::new(Dtype::I64, vec![0, 5], &[]).unwrap()),
    ];
    let file = serialize(views, None).unwrap();
    let layout = layout(&file);
    assert_eq!((layout.container, layout.tensors.len()), (Container::Safetensors, 2));
    let b = layout.tensors.iter().find(|tensor| tensor.name == "b").unwrap();
    assert_eq!((b.element, &b.shape[..], b.range.len), (Element::F32, &[3, 4][..], 48));
    assert_eq!(&file[usize::try_from(b.range.offset).unwrap()..][..48], &data[..]);
}

#[test]
fn hostile_safetensors_are_bytes() {
    let entry = |offsets: &str| format!(r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{offsets}}}}}"#);
    let mut huge = safetensors_with(&entry("[0,4]"), 4);
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let two = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#;
    let overlap = two.replacen("\"a\"", "\"b\"", 1).replace("[4,8]", "[2,6]");
    let deep = "{\"a\":".repeat(100_000);
    for file in [
        huge,
        safetensors_with(&entry("[0,5]"), 8),
        safetensors_with(&entry("[4,0]"), 8),
        safetensors_with(&entry("[0,18446744073709551615]"), 8),
        safetensors_with(&entry("[-1,3]"), 8),
        safetensors_with(r#"{"a":{"dtype":"F32","shape":[9223372036854775807,8],"data_offsets":[0,4]}}"#, 8),
        safetensors_with(two, 8),
        safetensors_with(&overlap, 8),
        safetensors_with(&deep, 0),
        safetensors_with("{", 0),
    ] {
        let layout = layout(&file);
        assert_eq!(layout.container, Container::Unknown);
        assert!(layout.note.is_some_and(|note| note.starts_with("safetensors")));
    }
}

/// Fixtures that `scripts/generate_fixtures.py` wrote with torch and NumPy.
fn fixture(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tensor").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn found(layout: &Layout, name: &str) -> (Element, Vec<u64>, u64) {
    let tensor = layout.tensors.iter().find(|tensor| tensor.name == name);
    let tensor = tensor.unwrap_or_else(|| {
        panic!("no {name} among {:?}", layout.tensors.iter().map(|t| &t.name).collect::<Vec<_>>())
    });
    (tensor.element, tensor.shape.clone(), tensor.range.len)
}

#[test]
fn checkpoints_of_torch_are_read_with_their_optimizer() {
    let layout = layout(&fixture("training.pt"));
    assert_eq!(layout.container, Container::TorchZip, "{:?}", layout.note);
    assert_eq!(found(&layout, "model.weight"), (Element::F32, vec![3, 4], 48));
    assert_eq!(found(&layout, "optimizer.state.0.exp_avg"), (Element::F32, vec![3, 4], 48));
    assert_eq!(found(&layout, "half"), (Element::Bf16, vec![5], 10));
    assert_eq!(found(&layout, "eighth"), (Element::F8E4M3, vec![6], 6));
    assert_eq!(found(&layout, "scalar"), (Element::F64, vec![], 8));
    // Tied: one storage, under its first name; a view of a part does not give a storage its shape.
    assert!(layout.tensors.iter().all(|tensor| tensor.name != "tied"));
    assert_eq!(found(&layout, "row").1, vec![8]);
}

#[test]
fn the_bytes_of_a_tensor_are_where_the_layout_says() {
    for (name, tensor) in [("training.pt", "counting"), ("legacy.pt", "counting"), ("arrays.npz", "counting")]
    {
        let file = fixture(name);
        let layout = layout(&file);
        let at =
            layout.tensors.iter().find(|t| t.name == tensor).unwrap_or_else(|| panic!("{name}: {layout:?}"));
        assert_eq!((at.element, &at.shape[..]), (Element::I32, &[4][..]), "{name}");
        let bytes = &file[usize::try_from(at.range.offset).unwrap()..][..16];
        assert_eq!(bytes, [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0], "{name}");
    }
}

#[test]
fn archives_one_after_the_other_are_all_read() {
    let layout = layout(&fixture("sharded.distcp"));
    assert_eq!((layout.container, layout.tensors.len()), (Container::TorchZip, 2), "{:?}", layout.note);
}

#[test]
fn a_pickle_that_would_run_code_is_only_read() {
    let layout = layout(&fixture("hostile.pt"));
    assert_eq!(layout.container, Container::TorchZip);
    assert!(!std::path::Path::new("/tmp/mithril-hostile-pickle-ran").exists());
}

#[test]
fn numbers_without_a_container_are_recognised_and_text_is_not() {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 33
    };
    let noise: Vec<u8> = (0..200_000).map(|_| random().to_le_bytes()[0]).collect();
    assert!(layout(&noise).tensors.is_empty());
    let text: Vec<u8> = (0..20_000).flat_map(|i| format!("line {i} of some text\n").into_bytes()).collect();
    assert!(layout(&text).tensors.is_empty());
    let uniform = |random: u64| (random % 20_000) as f32 / 1e5 - 0.1;
    let floats: Vec<u8> = (0..50_000).flat_map(|_| uniform(random()).to_le_bytes()).collect();
    assert_eq!(layout(&floats).tensors[0].element, Element::F32);
    let halves: Vec<u8> =
        (0..50_000).flat_map(|_| half::bf16::from_f32(uniform(random())).to_le_bytes()).collect();
    assert_eq!(layout(&halves).tensors[0].element, Element::Bf16);
}

fn check(file: &[u8]) {
    let layout = layout(file);
    let mut end = 0;
    for tensor in &layout.tensors {
        assert!(
            tensor.range.len > 0 && tensor.range.offset >= end && tensor.range.end() <= file.len() as u64
        );
        end = tensor.range.end();
    }
}

#[test]
fn no_truncation_of_a_good_file_is_a_problem() {
    for name in ["training.pt", "legacy.pt", "arrays.npz", "sharded.distcp"] {
        let file = fixture(name);
        (0..file.len()).for_each(|len| check(&file[..len]));
    }
}

proptest! {
    #[test]
    fn damaged_files_have_sane_layouts(
        which in 0usize..4,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut file = fixture(["training.pt", "legacy.pt", "arrays.npz", "sharded.distcp"][which]);
        for (index, value) in damage {
            let at = index.index(file.len());
            file[at] = value;
        }
        check(&file);
    }

    #[test]
    fn pickles_of_random_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(pickle) = pickle::read(&bytes) {
            pickle.tensors();
        }
    }
}
