//! Attention of many queries over chosen keys.

use pyo3::prelude::*;
use tokamask::kernels::array::{Floats, FloatsMut};
use tokamask::kernels::attention::{self, BlockRows, Routed};

use super::attention::{dense, same_type, view};
use crate::arrays::{contiguous, contiguous_mut, floats, floats_mut, shape_error};
use crate::errors::Result;

/// Attention over blocks of keys into `out` and `lse`; `size` is the queries and keys of a block.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn block_sparse_prefill(
    py: Python<'_>,
    q: &Bound<'_, PyAny>,
    k: &Bound<'_, PyAny>,
    v: &Bound<'_, PyAny>,
    indptr: &Bound<'_, PyAny>,
    indices: &Bound<'_, PyAny>,
    size: [usize; 2],
    causal: bool,
    scale: f32,
    out: &Bound<'_, PyAny>,
    lse: &Bound<'_, PyAny>,
) -> Result<()> {
    let arrays = (floats("q", q)?, floats("k", k)?, floats("v", v)?);
    let (indptr, indices) = (dense::<i32, 2>("indptr", indptr)?, contiguous::<i32>("indices", indices)?.0);
    let blocks = BlockRows { indptr, indices, size, causal };
    let outputs = (floats_mut("out", out)?, contiguous_mut::<f32>("lse", lse)?.0);
    let error = shape_error("k", "the type of q, as v and out", k).into();
    same_type!(arrays.0.data, arrays.1.data, arrays.2.data, outputs.0.data, error, |a, b, c, o| {
        let q = view::<_, 3>("q", a, &arrays.0, q)?;
        let (k, v) = (view::<_, 3>("k", b, &arrays.1, k)?, view::<_, 3>("v", c, &arrays.2, v)?);
        Ok(py.detach(|| attention::block_sparse_prefill(q, k, v, &blocks, scale, o, outputs.1))?)
    })
}

/// Causal attention among the selected tokens of each head into `out` and `lse`.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn selected_prefill(
    py: Python<'_>,
    q: &Bound<'_, PyAny>,
    k: &Bound<'_, PyAny>,
    v: &Bound<'_, PyAny>,
    selected: &Bound<'_, PyAny>,
    scale: f32,
    out: &Bound<'_, PyAny>,
    lse: &Bound<'_, PyAny>,
) -> Result<()> {
    let arrays = (floats("q", q)?, floats("k", k)?, floats("v", v)?);
    let selected = dense::<i32, 2>("selected", selected)?;
    let outputs = (floats_mut("out", out)?, contiguous_mut::<f32>("lse", lse)?.0);
    let error = shape_error("k", "the type of q, as v and out", k).into();
    same_type!(arrays.0.data, arrays.1.data, arrays.2.data, outputs.0.data, error, |a, b, c, o| {
        let q = view::<_, 3>("q", a, &arrays.0, q)?;
        let (k, v) = (view::<_, 3>("k", b, &arrays.1, k)?, view::<_, 3>("v", c, &arrays.2, v)?);
        Ok(py.detach(|| attention::selected_prefill(q, k, v, selected, scale, o, outputs.1))?)
    })
}

/// Softmax over salient tokens and a window, linear attention over the rest, into `out`.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn hybrid_attention(
    py: Python<'_>,
    q: &Bound<'_, PyAny>,
    k: &Bound<'_, PyAny>,
    v: &Bound<'_, PyAny>,
    salient: &Bound<'_, PyAny>,
    phi_q: &Bound<'_, PyAny>,
    phi_k: &Bound<'_, PyAny>,
    window: usize,
    scale: f32,
    out: &Bound<'_, PyAny>,
) -> Result<()> {
    let arrays = (floats("q", q)?, floats("k", k)?, floats("v", v)?);
    let salient = dense::<bool, 3>("salient", salient)?;
    let (phi_q, phi_k) = (dense::<f32, 4>("phi_q", phi_q)?, dense::<f32, 4>("phi_k", phi_k)?);
    let routed = Routed { salient, phi_q, phi_k, window };
    let output = floats_mut("out", out)?;
    let error = shape_error("k", "the type of q, as v and out", k).into();
    same_type!(arrays.0.data, arrays.1.data, arrays.2.data, output.data, error, |a, b, c, o| {
        let q = view::<_, 4>("q", a, &arrays.0, q)?;
        let (k, v) = (view::<_, 4>("k", b, &arrays.1, k)?, view::<_, 4>("v", c, &arrays.2, v)?);
        Ok(py.detach(|| attention::hybrid_attention(q, k, v, &routed, scale, o))?)
    })
}
