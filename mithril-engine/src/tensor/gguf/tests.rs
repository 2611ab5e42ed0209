use super::*;
use crate::tensor::{Container, Element, Layout, inspect};

/// Builds a file.
struct Gguf {
    header: Vec<u8>,
    infos: Vec<u8>,
    data: Vec<u8>,
    tensors: u64,
    values: u64,
    version: u32,
    alignment: usize,
}

impl Gguf {
    fn new() -> Self {
        let (header, infos, data) = (Vec::new(), Vec::new(), Vec::new());
        Self { header, infos, data, tensors: 0, values: 0, version: 3, alignment: 32 }
    }

    fn value(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        put_text(&mut self.header, key);
        self.header.extend_from_slice(&kind.to_le_bytes());
        self.header.extend_from_slice(value);
        self.values += 1;
        self
    }

    fn aligned(mut self, alignment: u32) -> Self {
        self.alignment = alignment as usize;
        self.value("general.alignment", UINT32, &alignment.to_le_bytes())
    }

    /// Describes a tensor; `shape` is as in the file, the row first.
    fn info(mut self, name: &str, shape: &[u64], kind: u32, offset: u64) -> Self {
        put_text(&mut self.infos, name);
        self.infos.extend_from_slice(&u32::try_from(shape.len()).unwrap().to_le_bytes());
        shape.iter().for_each(|dimension| self.infos.extend_from_slice(&dimension.to_le_bytes()));
        self.infos.extend_from_slice(&kind.to_le_bytes());
        self.infos.extend_from_slice(&offset.to_le_bytes());
        self.tensors += 1;
        self
    }

    /// Adds a tensor with its data behind the others.
    fn tensor(mut self, name: &str, shape: &[u64], kind: u32, data: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        let offset = self.data.len() as u64;
        self.data.extend_from_slice(data);
        self.info(name, shape, kind, offset)
    }

    fn file(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend_from_slice(&self.version.to_le_bytes());
        file.extend_from_slice(&self.tensors.to_le_bytes());
        file.extend_from_slice(&self.values.to_le_bytes());
        file.extend_from_slice(&self.header);
        file.extend_from_slice(&self.infos);
        file.resize(file.len().next_multiple_of(self.alignment), 0);
        file.extend_from_slice(&self.data);
        file
    }

    fn layout(&self) -> Layout {
        inspect(&&self.file()[..]).unwrap()
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// An array of metadata: the type of its items, their number, the items.
fn array(kind: u32, len: u64, items: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &len.to_le_bytes()[..], items].concat()
}

/// A file with every type of metadata.
fn model() -> Gguf {
    let mut words = Vec::new();
    (0..30_000).for_each(|i| put_text(&mut words, &format!("word {i}")));
    let mut name = Vec::new();
    put_text(&mut name, "a model");
    let nested = array(ARRAY, 2, &[array(0, 3, &[1, 2, 3]), array(STRING, 1, &name)].concat());
    let mut gguf = Gguf::new()
        .value("general.name", STRING, &name)
        .value("tokenizer.ggml.tokens", ARRAY, &array(STRING, 30_000, &words))
        .value("tokenizer.ggml.scores", ARRAY, &array(6, 50_000, &vec![7; 200_000]))
        .value("nested", ARRAY, &nested);
    for (kind, width) in
        [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (10, 8), (11, 8), (12, 8)]
    {
        gguf = gguf.value(&format!("value.{kind}"), kind, &vec![1; width]);
    }
    gguf
}

#[test]
fn tensors_have_their_types_shapes_and_bytes() {
    for (version, alignment) in [(2, None), (3, None), (3, Some(64)), (3, Some(8))] {
        let mut gguf = model();
        gguf.version = version;
        if let Some(alignment) = alignment {
            gguf = gguf.aligned(alignment);
        }
        let gguf = gguf
            .tensor("embedding", &[3, 5], 0, &[1; 60])
            .tensor("norm", &[7], 30, &[2; 14])
            .tensor("halves", &[2, 2, 2], 1, &[3; 16])
            .tensor("scalar", &[], 28, &[4; 8])
            .tensor("empty", &[0, 3], 0, &[])
            .tensor("bytes", &[5], 24, &[5; 5])
            .tensor("shorts", &[5], 25, &[6; 10])
            .tensor("ints", &[5], 26, &[7; 20])
            .tensor("longs", &[5], 27, &[8; 40]);
        let (file, layout) = (gguf.file(), gguf.layout());
        assert_eq!((layout.container, &layout.note), (Container::Gguf, &None));
        let found: Vec<_> =
            layout.tensors.iter().map(|t| (t.name.as_str(), t.element, &t.shape[..], t.range.len)).collect();
        assert_eq!(
            found,
            [
                ("embedding", Element::F32, &[5, 3][..], 60),
                ("norm", Element::Bf16, &[7], 14),
                ("halves", Element::F16, &[2, 2, 2], 16),
                ("scalar", Element::F64, &[], 8),
                ("bytes", Element::I8, &[5], 5),
                ("shorts", Element::I16, &[5], 10),
                ("ints", Element::I32, &[5], 20),
                ("longs", Element::I64, &[5], 40),
            ]
        );
        for (tensor, byte) in layout.tensors.iter().zip(1..) {
            let range =
                usize::try_from(tensor.range.offset).unwrap()..usize::try_from(tensor.range.end()).unwrap();
            assert!(file[range].iter().all(|&is| is == byte), "{}", tensor.name);
        }
    }
}

#[test]
fn quantised_blocks_are_bytes_of_the_right_number() {
    // Number of the type, elements of a block, bits an element as they are published.
    let kinds = [
        (2, 32, 4.5),
        (3, 32, 5.0),
        (6, 32, 5.5),
        (7, 32, 6.0),
        (8, 32, 8.5),
        (10, 256, 2.625),
        (11, 256, 3.4375),
        (12, 256, 4.5),
        (13, 256, 5.5),
        (14, 256, 6.5625),
        (16, 256, 2.0625),
        (17, 256, 2.3125),
        (18, 256, 3.0625),
        (19, 256, 1.5625),
        (20, 32, 4.5),
        (21, 256, 3.4375),
        (22, 256, 2.5625),
        (23, 256, 4.25),
        (29, 256, 1.75),
        (34, 256, 1.6875),
        (35, 256, 2.0625),
        (39, 32, 4.25),
        (40, 64, 4.5),
        (41, 128, 1.125),
    ];
    for (kind, block, bits) in kinds {
        let row = u64::from(2u32 * block);
        // More than any of them needs.
        let data = vec![1; usize::try_from(row * 6).unwrap()];
        let layout = Gguf::new().tensor("q", &[row, 3], kind, &data).layout();
        assert_eq!(layout.container, Container::Gguf, "{kind}: {:?}", layout.note);
        let quantised = &layout.tensors[0];
        assert_eq!((quantised.element, &quantised.shape[..]), (Element::Bytes, &[3, row][..]), "{kind}");
        assert_eq!(quantised.range.len as f64 * 8.0, (row * 3) as f64 * bits, "{kind}");
        // Rows are whole blocks.
        let layout = Gguf::new().tensor("q", &[u64::from(block / 2), 2], kind, &data).layout();
        assert!(layout.note.is_some_and(|note| note.contains("impossible shape")), "{kind}");
    }
}

#[test]
fn a_tensor_of_an_unknown_type_ends_where_the_next_begins() {
    let layout = Gguf::new()
        .tensor("new", &[100], 4000, &[1; 100])
        .tensor("known", &[4], 0, &[2; 16])
        .tensor("last", &[100], 4000, &[3; 50])
        .layout();
    assert_eq!(layout.container, Container::Gguf);
    let found: Vec<_> = layout.tensors.iter().map(|t| (t.name.as_str(), t.element, t.range.len)).collect();
    assert_eq!(
        found,
        [("new", Element::Bytes, 128), ("known", Element::F32, 16), ("last", Element::Bytes, 50)]
    );
}

#[test]
fn hostile_headers_are_bytes() {
    let refused = |gguf: &Gguf, why: &str| {
        let layout = gguf.layout();
        assert_eq!(layout.container, Container::Unknown, "{why}");
        let note = layout.note.unwrap_or_default();
        assert!(note.starts_with("gguf: ") && note.contains(why), "{note:?} is not {why:?}");
    };
    let with = |change: fn(&mut Gguf)| {
        let mut gguf = model().tensor("w", &[4], 0, &[1; 16]);
        change(&mut gguf);
        gguf
    };
    refused(&with(|gguf| gguf.version = 1), "version 1");
    refused(&with(|gguf| gguf.version = 4), "version 4");
    refused(&with(|gguf| gguf.version = 3u32.swap_bytes()), "big-endian");
    refused(&with(|gguf| gguf.tensors = u64::MAX), "claims");
    refused(&with(|gguf| gguf.tensors = MAX_TENSORS), "the name of a tensor");
    refused(&with(|gguf| gguf.values = u64::MAX), "metadata");
    refused(&Gguf::new().info("w", &[4], 0, 0), "outside");
    refused(&Gguf::new().info("w", &[4], 0, 3), "not aligned");
    refused(&Gguf::new().info("w", &[4], 0, u64::MAX - 31), "outside");
    refused(&Gguf::new().info("w", &[1 << 62, 4], 0, 0), "impossible shape");
    refused(&Gguf::new().info("w", &[1 << 61], 0, 0), "outside");
    refused(&Gguf::new().info("w", &[1; 9], 0, 0), "9 dimensions");
    refused(&Gguf::new().info(&"w".repeat(1025), &[], 0, 0), "too long");
    refused(&Gguf::new().tensor("w", &[4], 0, &[1; 16]).tensor("w", &[4], 0, &[1; 16]), "one name");
    refused(&Gguf::new().tensor("w", &[16], 0, &[1; 64]).info("x", &[8], 0, 32), "overlaps");
    refused(&Gguf::new().aligned(0x20).aligned(0x40), "alignment");
    refused(&Gguf::new().value("general.alignment", 10, &[32, 0, 0, 0, 0, 0, 0, 0]), "alignment");
    refused(&Gguf::new().value("general.alignment", UINT32, &[0; 4]), "alignment is 0");
    refused(&Gguf::new().value("v", 13, &[0; 8]), "type 13");
    refused(&Gguf::new().value("v", STRING, &u64::MAX.to_le_bytes()), "cut short");
    refused(&Gguf::new().value("v", ARRAY, &array(12, 1 << 61, &[])), "too long");
    refused(&Gguf::new().value("v", ARRAY, &array(STRING, u64::MAX, &[0; 800])), "cut short");
    let deep = (0..1000).fold(array(0, 0, &[]), |inner, _| array(ARRAY, 1, &inner));
    refused(&Gguf::new().value("v", ARRAY, &deep), "nested");
}

#[test]
fn no_truncation_of_a_good_file_is_a_problem() {
    let file = model().aligned(64).tensor("w", &[32, 2], 2, &[1; 36]).tensor("v", &[4], 0, &[1; 16]).file();
    let whole = inspect(&&file[..]).unwrap();
    assert_eq!(whole.tensors.len(), 2);
    // Every length about the seams, some of the others.
    for len in (0..file.len()).filter(|len| len % 997 == 0 || *len < 200 || *len + 400 > file.len()) {
        let layout = inspect(&&file[..len]).unwrap();
        assert!(layout.container == Container::Unknown || layout.tensors.is_empty(), "{len}");
    }
}

#[test]
fn a_header_is_read_once_and_no_further() {
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Sparse {
        front: Vec<u8>,
        read: AtomicU64,
    }
    impl Source for Sparse {
        fn size(&self) -> u64 {
            1 << 40
        }
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
            self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            buffer.fill(0);
            let start = usize::try_from(offset).unwrap();
            if let Some(front) = self.front.get(start..) {
                let len = front.len().min(buffer.len());
                buffer[..len].copy_from_slice(&front[..len]);
            }
            Ok(())
        }
    }
    let read_of = |gguf: &Gguf| {
        let source = Sparse { front: gguf.file(), read: AtomicU64::new(0) };
        let parsed = parse(&source).unwrap().unwrap();
        (parsed, source.read.into_inner())
    };
    let gguf = model().tensor("w", &[4], 0, &[1; 16]);
    let (parsed, read) = read_of(&gguf);
    assert_eq!(parsed.unwrap().len(), 1);
    assert!(read < gguf.header.len() as u64 + (128 << 10), "{read}");
    // A million million strings.
    let (parsed, read) = read_of(&Gguf::new().value("v", ARRAY, &array(STRING, 1 << 40, &[])));
    assert!(parsed.is_err_and(|reason| reason.contains("too long")));
    assert!(read < 2 * HEADER_MAX_BYTES, "{read}");
}
