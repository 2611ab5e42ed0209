//! One way of compressing tensors, timed round by round for `scripts/bench_codec.sh`, which runs it beside its peers.
//!
//! `codec_bench isas` prints the instruction sets that this processor has code for. `codec_bench codec LEVEL ISA THREADS`
//! measures the codec, `codec_bench copy` and `codec_bench blake3` the limits of the machine, all in memory: each reads
//! requests from the standard input, one JSON object a line, and answers with one.
//!
//! ```text
//! {"open": {"element": "BF16", "shapes": [[768, 256], ...], "new": PATH, "base": PATH or null}}   -> {"raw": BYTES}
//! "round"   -> {"stored": BYTES, "chunks": COUNT, "compress": SECONDS, "decompress": SECONDS}
//! ```
//!
//! A file has the bytes of all tensors, one after the other; that of the base is as long. They are cut into chunks as
//! the packer cuts them. What comes back is compared in every round, outside of what is timed.

use std::error::Error;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use mithril_engine::chunk::{self, Piece};
use mithril_engine::codec::{self, Against, Input, Isa, Level, Options, Scratch};
use mithril_engine::range::ByteRange;
use mithril_engine::tensor::{Container, Element, Layout, Tensor};
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::Deserialize;
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Request {
    Open(Open),
    Round,
}

#[derive(Deserialize)]
struct Open {
    element: String,
    shapes: Vec<Vec<u64>>,
    new: std::path::PathBuf,
    base: Option<std::path::PathBuf>,
}

/// What is measured.
enum Method {
    /// Encoding and decoding, by as many threads as the pool has.
    Codec { level: Level, pool: ThreadPool, scratch: Vec<Mutex<Scratch>> },
    /// Copying each chunk, twice.
    Copy,
    /// Hashing each chunk, twice.
    Blake3,
}

/// The tensors, and buffers that all rounds use again.
struct Data {
    raw: Vec<u8>,
    base: Option<Vec<u8>>,
    layout: Layout,
    pieces: Vec<Piece>,
    encoded: Vec<Mutex<(Vec<u8>, Against)>>,
    plain: Vec<u8>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let method = match arguments[..] {
        ["isas"] => {
            Isa::available().for_each(|isa| println!("{}", name_of(isa)));
            return Ok(());
        }
        ["copy"] => Method::Copy,
        ["blake3"] => Method::Blake3,
        ["codec", level, isa, threads] => {
            let isa =
                Isa::available().find(|known| name_of(*known) == isa).ok_or("no such instruction set")?;
            codec::limit_isa(isa);
            let threads = threads.parse()?;
            let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;
            let scratch = (0..threads).map(|_| Mutex::default()).collect();
            Method::Codec { level: level.parse()?, pool, scratch }
        }
        _ => return Err("usage: codec_bench isas | copy | blake3 | codec LEVEL ISA THREADS".into()),
    };
    let mut data = None;
    for line in std::io::stdin().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Request::Open(open) => {
                let data = data.insert(Data::read(&open)?);
                json!({ "raw": data.raw.len() })
            }
            Request::Round => round(&method, data.as_mut().ok_or("nothing is open")?)?,
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn name_of(isa: Isa) -> String {
    format!("{isa:?}").to_lowercase()
}

fn element(name: &str) -> Option<Element> {
    match name {
        "BF16" => Some(Element::Bf16),
        "F16" => Some(Element::F16),
        "F32" => Some(Element::F32),
        "F64" => Some(Element::F64),
        "I64" => Some(Element::I64),
        _ => None,
    }
}

impl Data {
    fn read(open: &Open) -> Result<Self> {
        let element = element(&open.element).ok_or("an element type that is not measured")?;
        let raw = std::fs::read(&open.new)?;
        let base = open.base.as_ref().map(std::fs::read).transpose()?;
        let mut offset = 0;
        let mut tensors = Vec::new();
        for shape in &open.shapes {
            let len = shape.iter().product::<u64>() * element.width() as u64;
            let range = ByteRange { offset, len };
            tensors.push(Tensor { name: String::new(), element, shape: shape.clone(), range });
            offset += len;
        }
        if offset != raw.len() as u64 || base.as_ref().is_some_and(|base| base.len() != raw.len()) {
            return Err("the shapes and the files are not of one length".into());
        }
        let layout = Layout { container: Container::Unknown, tensors, note: None };
        let pieces = chunk::cut(&layout, &[ByteRange { offset: 0, len: offset }]);
        let encoded = pieces.iter().map(|_| Mutex::new((Vec::new(), Against::Nothing))).collect();
        Ok(Self { plain: vec![0; raw.len()], raw, base, layout, pieces, encoded })
    }
}

fn at(piece: &Piece) -> std::ops::Range<usize> {
    let offset = usize::try_from(piece.range.offset).expect("it lies in memory");
    offset..offset + usize::try_from(piece.range.len).expect("it lies in memory")
}

fn round(method: &Method, data: &mut Data) -> Result<serde_json::Value> {
    let Data { raw, base, layout, pieces, encoded, plain } = data;
    // What an earlier round left there would hide what this one leaves out.
    plain.fill(0xa5);
    let (compress, decompress) = match method {
        Method::Codec { level, pool, scratch } => {
            let options = Options { level: *level, ..Options::default() };
            let compress = each(pool, scratch, pieces.len(), |index, scratch| {
                let piece = &pieces[index];
                let mut slot = encoded[index].lock().expect("no thread panicked");
                let (out, against) = &mut *slot;
                out.clear();
                let input = Input {
                    grid: piece.grid(&layout.tensors),
                    base: base.as_ref().map(|base| &base[at(piece)]),
                    ..Input::new(&raw[at(piece)], piece.element)
                };
                *against = codec::encode(&input, options, scratch, out);
            });
            // In the order of the pieces, which cover everything.
            let mut rest = &mut plain[..];
            let targets: Vec<Mutex<&mut [u8]>> = pieces
                .iter()
                .map(|piece| Mutex::new(rest.split_off_mut(..at(piece).len()).expect("it is covered")))
                .collect();
            let decompress = each(pool, scratch, pieces.len(), |index, scratch| {
                let (out, against) = &*encoded[index].lock().expect("no thread panicked");
                let base =
                    base.as_ref().filter(|_| *against == Against::Base).map(|base| &base[at(&pieces[index])]);
                let mut target = targets[index].lock().expect("no thread panicked");
                codec::decode(out, base, scratch, &mut target).expect("what was encoded is decoded");
            });
            (compress, decompress)
        }
        Method::Copy => {
            let copy = |to: &mut [u8]| {
                let started = Instant::now();
                pieces.iter().for_each(|piece| to[at(piece)].copy_from_slice(&raw[at(piece)]));
                started.elapsed().as_secs_f64()
            };
            (copy(plain), copy(plain))
        }
        Method::Blake3 => {
            let hash = || {
                let started = Instant::now();
                pieces.iter().for_each(|piece| _ = std::hint::black_box(blake3::hash(&raw[at(piece)])));
                started.elapsed().as_secs_f64()
            };
            plain.copy_from_slice(raw);
            (hash(), hash())
        }
    };
    if plain != raw {
        return Ok(json!({ "error": "other bytes came back" }));
    }
    let stored: usize = match method {
        Method::Codec { .. } => {
            encoded.iter_mut().map(|slot| slot.get_mut().expect("no thread panicked").0.len()).sum()
        }
        _ => raw.len(),
    };
    Ok(json!({ "stored": stored, "chunks": pieces.len(), "compress": compress, "decompress": decompress }))
}

/// Does `count` things on all threads of the pool, and returns the seconds that it took.
fn each(
    pool: &ThreadPool,
    scratch: &[Mutex<Scratch>],
    count: usize,
    work: impl Fn(usize, &mut Scratch) + Sync,
) -> f64 {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    pool.broadcast(|context| {
        let mut scratch = scratch[context.index()].lock().expect("no thread panicked");
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            work(index, &mut scratch);
        }
    });
    started.elapsed().as_secs_f64()
}
