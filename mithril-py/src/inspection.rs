//! `mithril.inspect`: which tensors a file holds, and where.
//!
//! Owns the Python faces of the engine's layout. It never executes a pickle and never reads more of a file than the
//! engine's parsers need.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mithril_engine::source::{FileSource, Source};
use mithril_engine::tensor::{self, Element, Layout, Tensor};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

/// A tensor's storage in a file.
#[pyclass(frozen, module = "mithril")]
#[derive(Debug)]
pub(crate) struct TensorInfo {
    /// The name in the container.
    #[pyo3(get)]
    name: String,
    /// The element type, named as PyTorch names it.
    #[pyo3(get)]
    dtype: &'static str,
    shape: Vec<u64>,
    /// The first byte in the file.
    #[pyo3(get)]
    offset: u64,
    /// Bytes.
    #[pyo3(get)]
    nbytes: u64,
}

#[pymethods]
impl TensorInfo {
    /// The dimensions; `()` for a scalar.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let name = PyString::new(py, &self.name).repr()?;
        let shape = self.shape(py)?.repr()?;
        Ok(format!(
            "TensorInfo(name={name}, dtype='{}', shape={shape}, offset={}, nbytes={})",
            self.dtype, self.offset, self.nbytes
        ))
    }
}

impl From<Tensor> for TensorInfo {
    fn from(tensor: Tensor) -> Self {
        Self {
            name: tensor.name,
            dtype: dtype(tensor.element),
            shape: tensor.shape,
            offset: tensor.range.offset,
            nbytes: tensor.range.len,
        }
    }
}

/// What a file holds.
#[pyclass(frozen, module = "mithril")]
#[derive(Debug)]
pub(crate) struct Inspection {
    /// The format: `"safetensors"`, `"torch-zip"`, `"unknown"` and so on.
    #[pyo3(get)]
    container: &'static str,
    /// Why the file is unknown although its first bytes looked like a known format.
    #[pyo3(get)]
    note: Option<String>,
    /// Bytes of the file.
    #[pyo3(get)]
    file_len: u64,
    tensors: Vec<Py<TensorInfo>>,
}

#[pymethods]
impl Inspection {
    /// The tensors by offset; empty ones are left out.
    #[getter]
    fn tensors(&self, py: Python<'_>) -> Vec<Py<TensorInfo>> {
        self.tensors.iter().map(|tensor| tensor.clone_ref(py)).collect()
    }

    fn __repr__(&self) -> String {
        let tensors = self.tensors.len();
        format!("<Inspection of a {} file, {} bytes, {tensors} tensors>", self.container, self.file_len)
    }
}

/// Why a path cannot be inspected.
enum Refusal {
    /// The system refused.
    System(io::Error),
    /// It is a directory, a pipe or a device.
    NoFile,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Refusal::System(error)
    }
}

/// Finds out what the file at `path` holds. Malformed content is no error: the file is `unknown` then.
#[pyfunction]
pub(crate) fn inspect(py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Inspection> {
    let path = path_of(path)?;
    let (layout, file_len) = py.detach(|| read(&path)).map_err(|refusal| error(py, &path, refusal))?;
    let tensors = layout.tensors.into_iter().map(|tensor| Py::new(py, TensorInfo::from(tensor)));
    Ok(Inspection {
        container: layout.container.name(),
        note: layout.note,
        file_len,
        tensors: tensors.collect::<PyResult<_>>()?,
    })
}

/// A string, bytes or anything like a path, as the system takes it: not necessarily UTF-8.
fn path_of(path: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    let bytes: Vec<u8> = path.py().import("os")?.call_method1("fsencode", (path,))?.extract()?;
    Ok(OsString::from_vec(bytes).into())
}

fn read(path: &Path) -> Result<(Layout, u64), Refusal> {
    // Without O_NONBLOCK the opening of a pipe would wait for a writer. For files it means nothing.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(Refusal::NoFile);
    }
    let source = FileSource::new(file)?;
    Ok((tensor::inspect(&source)?, source.size()))
}

/// `OSError` with number and name becomes the subclass that fits, `FileNotFoundError` for example.
fn error(py: Python<'_>, path: &Path, refusal: Refusal) -> PyErr {
    let error = match refusal {
        Refusal::NoFile => return PyValueError::new_err(format!("{} is no regular file", path.display())),
        Refusal::System(error) => error,
    };
    let Some(number) = error.raw_os_error() else {
        // A zero byte in the path never reaches the system.
        let is_argument = error.kind() == io::ErrorKind::InvalidInput;
        return if is_argument { PyValueError::new_err(error.to_string()) } else { error.into() };
    };
    let message = py
        .import("os")
        .and_then(|os| os.call_method1("strerror", (number,)))
        .and_then(|text| text.extract::<String>())
        .unwrap_or_else(|_| error.to_string());
    PyOSError::new_err((number, message, path.as_os_str().to_owned()))
}

/// The element type as PyTorch names it. `bytes` is what no type is known of.
const fn dtype(element: Element) -> &'static str {
    match element {
        Element::Bytes => "bytes",
        Element::Bool => "bool",
        Element::U8 => "uint8",
        Element::I8 => "int8",
        Element::I16 => "int16",
        Element::U16 => "uint16",
        Element::I32 => "int32",
        Element::U32 => "uint32",
        Element::I64 => "int64",
        Element::U64 => "uint64",
        Element::F16 => "float16",
        Element::Bf16 => "bfloat16",
        Element::F32 => "float32",
        Element::F64 => "float64",
        Element::F8E4M3 => "float8_e4m3fn",
        Element::F8E5M2 => "float8_e5m2",
        Element::F8E4M3Fnuz => "float8_e4m3fnuz",
        Element::F8E5M2Fnuz => "float8_e5m2fnuz",
        Element::F8E8M0 => "float8_e8m0fnu",
        Element::Complex64 => "complex64",
        Element::Complex128 => "complex128",
    }
}
