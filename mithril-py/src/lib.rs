//! The Python module `mithril._mithril`. This file only registers; what is registered is in [`inspection`].

mod inspection;

/// What `python/mithril/__init__.py` re-exports.
#[pyo3::pymodule]
mod _mithril {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::inspection::{Inspection, TensorInfo, inspect};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
