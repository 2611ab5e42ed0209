//! Pickles.

use mithril_engine::tensor::{Container, Element, Layout, inspect};

use super::allocations::most_held;
use super::pickler::Pickler;
use super::zip::Zip;

/// Bytes that a pickle may make us hold for each of its own: 32 by its budget, half of that again while a list grows, and
/// the pickle itself.
const HELD_PER_BYTE: usize = 49;
const HELD_AT_LEAST: usize = 2 << 20;

/// How long the hostile pickles are.
const LEN: usize = 1 << 20;

/// An archive with this pickle and some storages.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = Zip::default();
    zip.add("a/data.pkl", pickle);
    for key in ["0", "1"] {
        zip.add(&format!("a/data/{key}"), &[1; 64]);
    }
    zip.finish()
}

/// What a file with this pickle is seen as, within the bounds.
fn look(what: &str, pickler: Pickler) -> Layout {
    let pickle = pickler.finish();
    let file = archive(&pickle);
    let (held, layout) = most_held(|| inspect(&&file[..]).unwrap());
    let most = HELD_AT_LEAST + HELD_PER_BYTE * pickle.len();
    assert!(held <= most, "{what}: {held} bytes held for a pickle of {}", pickle.len());
    layout
}

/// Repeats `part` until the pickle is [`LEN`] long.
fn fill(pickler: &mut Pickler, mut part: impl FnMut(&mut Pickler)) {
    while pickler.bytes.len() < LEN {
        part(pickler);
    }
}

/// A pickle that begins with a tuple of so many numbers, which is remembered.
fn with_tuple(items: usize) -> (Pickler, u32) {
    let mut pickler = Pickler::new();
    pickler.op(b"(");
    (0..items).for_each(|_| pickler.int(1));
    pickler.op(b"t");
    let tuple = pickler.remember();
    pickler.op(b"0");
    (pickler, tuple)
}

#[test]
fn arguments_of_many_calls_are_not_copied() {
    let (mut pickler, tuple) = with_tuple(100_000);
    pickler.op(b"]");
    fill(&mut pickler, |pickler| {
        pickler.global("a", "b");
        pickler.recall(tuple);
        pickler.op(b"Ra");
    });
    assert_eq!(look("calls", pickler).container, Container::TorchZip);
}

#[test]
fn states_of_many_objects_are_not_copied() {
    let mut pickler = Pickler::new();
    pickler.op(b"}(");
    (0..100_000).for_each(|_| pickler.op(b"K\x01N"));
    pickler.op(b"u");
    let state = pickler.remember();
    pickler.op(b"0](");
    fill(&mut pickler, |pickler| {
        pickler.op(b"]");
        pickler.recall(state);
        pickler.op(b"b");
    });
    pickler.op(b"e");
    assert_eq!(look("states", pickler).container, Container::TorchZip);
}

#[test]
fn keys_of_storages_are_short() {
    let mut pickler = Pickler::new();
    pickler.storage(&"k".repeat(LEN / 2), 16);
    let storage_id = 4;
    pickler.op(b"0](");
    fill(&mut pickler, |pickler| {
        pickler.recall(storage_id);
        pickler.op(b"Q");
    });
    pickler.op(b"e");
    assert!(look("keys", pickler).tensors.is_empty());
}

/// Many tensors of one shape and storage, called by their number.
fn tensors_of(dimensions: usize) -> Pickler {
    let (mut pickler, shape) = with_tuple(dimensions);
    pickler.op(b"(");
    pickler.storage("0", 16);
    pickler.int(0);
    pickler.recall(shape);
    pickler.op(b"t");
    let arguments = pickler.remember();
    pickler.op(b"0](");
    fill(&mut pickler, |pickler| {
        pickler.global("torch._utils", "_rebuild_tensor_v2");
        pickler.recall(arguments);
        pickler.op(b"R");
    });
    pickler.op(b"e");
    pickler
}

#[test]
fn shapes_of_many_tensors_are_not_copied() {
    assert!(look("more dimensions than there are", tensors_of(100_000)).tensors.is_empty());
    assert_eq!(look("most dimensions", tensors_of(64)).tensors.len(), 1);
}

#[test]
fn names_are_bounded_before_they_are_made() {
    for key_len in [LEN / 2, 1000] {
        let mut pickler = Pickler::new();
        pickler.text(&"k".repeat(key_len));
        let key = pickler.remember();
        pickler.op(b"0(");
        pickler.storage("0", 16);
        pickler.int(0);
        pickler.op(b")t");
        let arguments = pickler.remember();
        pickler.op(b"0}(");
        fill(&mut pickler, |pickler| {
            pickler.recall(key);
            pickler.global("torch._utils", "_rebuild_tensor_v2");
            pickler.recall(arguments);
            pickler.op(b"R");
        });
        pickler.op(b"u");
        let layout = look("names", pickler);
        assert_eq!(layout.tensors.len(), usize::from(key_len == 1000), "of {key_len} bytes");
    }
}

#[test]
fn lists_in_lists_are_looked_into_once() {
    let mut pickler = Pickler::new();
    pickler.op(b"]");
    let mut inner = pickler.remember();
    // 1000 to the power of 100 ways to the innermost.
    for _ in 0..100 {
        pickler.op(b"(");
        (0..1000).for_each(|_| pickler.recall(inner));
        pickler.op(b"l");
        inner = pickler.remember();
    }
    assert_eq!(look("lists in lists", pickler).container, Container::TorchZip);
}

#[test]
fn a_list_that_holds_itself_ends() {
    let mut pickler = Pickler::new();
    pickler.op(b"]");
    let list = pickler.remember();
    pickler.recall(list);
    pickler.op(b"a");
    pickler.recall(list);
    pickler.op(b"b");
    look("a list in itself", pickler);
}

#[test]
fn what_one_byte_makes_is_counted() {
    for (what, part) in [("lists", &b"]"[..]), ("marks", b"("), ("copies", b"2"), ("depth", b"]\x85")] {
        let mut pickler = Pickler::new();
        pickler.op(b"]");
        fill(&mut pickler, |pickler| pickler.op(part));
        pickler.op(b"0");
        look(what, pickler);
    }
    let mut pickler = Pickler::new();
    pickler.op(b"]");
    pickler.op(b"r\xff\xff\xff\xff");
    assert_eq!(look("a number of a memory far away", pickler).container, Container::Unknown);
}

#[test]
fn a_checkpoint_of_a_hundred_thousand_parameters_is_read() {
    const PARAMETERS: u32 = 100_000;
    let (mut pickler, mut zip) = (Pickler::new(), Zip::default());
    let mut storages = 0;
    let mut matrix = |pickler: &mut Pickler| {
        pickler.matrix(&storages.to_string(), 2, 2);
        zip.add(&format!("checkpoint/data/{storages}"), &[0; 16]);
        storages += 1;
    };
    pickler.op(b"}");
    pickler.remember();
    pickler.op(b"(");
    pickler.interned("model");
    pickler.global("collections", "OrderedDict");
    pickler.op(b")R");
    pickler.remember();
    pickler.op(b"(");
    for parameter in 0..PARAMETERS {
        pickler.interned(&format!("module.layers.{parameter}.feed_forward.experts.weight"));
        matrix(&mut pickler);
    }
    pickler.op(b"u");
    pickler.interned("optimizer");
    pickler.op(b"}");
    pickler.remember();
    pickler.op(b"(");
    pickler.interned("state");
    pickler.op(b"}");
    pickler.remember();
    pickler.op(b"(");
    for parameter in 0..PARAMETERS {
        pickler.int(parameter);
        pickler.op(b"}");
        pickler.remember();
        pickler.op(b"(");
        for part in ["exp_avg", "exp_avg_sq"] {
            pickler.interned(part);
            matrix(&mut pickler);
        }
        pickler.op(b"u");
    }
    pickler.op(b"uuu");
    let pickle = pickler.finish();
    zip.add("checkpoint/data.pkl", &pickle);
    let file = zip.finish();

    let (held, layout) = most_held(|| inspect(&&file[..]).unwrap());
    assert_eq!(layout.container, Container::TorchZip, "{:?}", layout.note);
    assert_eq!(layout.tensors.len(), 3 * PARAMETERS as usize);
    let last = layout.tensors.last().unwrap();
    assert_eq!(last.name, "optimizer.state.99999.exp_avg_sq");
    assert_eq!((last.element, &last.shape[..]), (Element::F32, &[2, 2][..]));
    assert!(held < 10 * file.len(), "{held} bytes held for a file of {}", file.len());
}
