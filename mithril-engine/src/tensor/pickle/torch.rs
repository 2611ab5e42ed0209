//! What torch's pickles are made of: storages, tensors, and the functions that rebuild them.

use super::Element;
use super::value::{Ref, Value, Values};

/// Most dimensions of a tensor: torch has the same limit.
pub(super) const MAX_DIMENSIONS: usize = 64;

/// What a call of a known function makes.
pub(super) enum Made {
    /// A value of its own.
    New(Value),
    /// What one of its arguments is.
    Same(Ref),
}

/// What a call with these arguments makes; `None` if the function is not known. Calls nothing: torch's rebuilding
/// functions are known by name.
pub(super) fn call(values: &Values<'_>, callable: Ref, items: &[Ref]) -> Option<Made> {
    let (module, name) = values.global(callable)?;
    Some(match (module, name) {
        (b"collections", b"OrderedDict") => Made::New(Value::Map(Vec::new())),
        (b"torch._utils", b"_rebuild_tensor" | b"_rebuild_tensor_v2") => {
            Made::New(tensor(values, items, None))
        }
        (b"torch._utils", b"_rebuild_tensor_v3") => {
            let element = items.get(6).and_then(|&dtype| dtype_element(values.global(dtype)?));
            Made::New(tensor(values, items, element))
        }
        (b"torch._utils", b"_rebuild_parameter" | b"_rebuild_parameter_with_state") => {
            items.first().map_or(Made::New(Value::Opaque), |&data| Made::Same(data))
        }
        _ => return None,
    })
}

/// `(storage, first element, shape, ...)`
fn tensor(values: &Values<'_>, items: &[Ref], element: Option<Element>) -> Value {
    let &[storage, first, shape, ..] = items else { return Value::Opaque };
    let first = values.number(first).and_then(|first| u64::try_from(first).ok());
    let is_dimension = |&item: &Ref| values.number(item).is_some_and(|dimension| dimension >= 0);
    let is_shape = values
        .items(shape)
        .is_some_and(|items| items.len() <= MAX_DIMENSIONS && items.iter().all(is_dimension));
    match first {
        Some(first) if is_shape => Value::Tensor { storage, element, first, shape },
        _ => Value::Opaque,
    }
}

/// `('storage', torch.FloatStorage, '0', 'cpu', 1024)`
pub(super) fn storage(values: &Values<'_>, id: Ref) -> Value {
    let Some(&[kind, class, key, ..]) = values.items(id) else { return Value::Opaque };
    let is_storage = values.text(kind).is_some_and(|kind| values.bytes_of(kind) == b"storage");
    match (values.global(class), values.text(key).filter(|&key| values.as_key(key).is_some())) {
        (Some(class), Some(key)) if is_storage => Value::Storage { element: storage_element(class), key },
        _ => Value::Opaque,
    }
}

/// `torch.FloatStorage`
fn storage_element((module, name): (&[u8], &[u8])) -> Option<Element> {
    if module != b"torch" && module != b"torch.cuda" {
        return None;
    }
    Some(match name.strip_suffix(b"Storage")? {
        b"Double" => Element::F64,
        b"Float" => Element::F32,
        b"Half" => Element::F16,
        b"BFloat16" => Element::Bf16,
        b"Long" => Element::I64,
        b"Int" => Element::I32,
        b"Short" => Element::I16,
        b"Char" => Element::I8,
        b"Byte" => Element::U8,
        b"Bool" => Element::Bool,
        b"ComplexFloat" => Element::Complex64,
        b"ComplexDouble" => Element::Complex128,
        _ => return None,
    })
}

/// `torch.float8_e4m3fn`
fn dtype_element((module, name): (&[u8], &[u8])) -> Option<Element> {
    if module != b"torch" {
        return None;
    }
    Some(match name {
        b"float64" => Element::F64,
        b"float32" => Element::F32,
        b"float16" => Element::F16,
        b"bfloat16" => Element::Bf16,
        b"float8_e4m3fn" => Element::F8E4M3,
        b"float8_e5m2" => Element::F8E5M2,
        b"float8_e4m3fnuz" => Element::F8E4M3Fnuz,
        b"float8_e5m2fnuz" => Element::F8E5M2Fnuz,
        b"float8_e8m0fnu" => Element::F8E8M0,
        b"int64" => Element::I64,
        b"int32" => Element::I32,
        b"int16" => Element::I16,
        b"int8" => Element::I8,
        b"uint64" => Element::U64,
        b"uint32" => Element::U32,
        b"uint16" => Element::U16,
        b"uint8" => Element::U8,
        b"bool" => Element::Bool,
        b"complex64" => Element::Complex64,
        b"complex128" => Element::Complex128,
        _ => return None,
    })
}
