//! Attention over a paged KV cache.

use pyo3::prelude::*;
use tokamask::kernels;
use tokamask::kernels::array::{Floats, FloatsMut, View};
use tokamask::kernels::attention::{self, Cache, Options, PageTable, Tree};

use crate::arrays::{contiguous, contiguous_mut, dimensions, floats, floats_mut, shape_error, FloatArray};
use crate::errors::Result;

/// A view of `N` dimensions over typed data.
pub(super) fn view<'a, T, const N: usize>(
    name: &str,
    data: &'a [T],
    array: &FloatArray,
    value: &Bound<'_, PyAny>,
) -> Result<View<'a, T, N>> {
    let (shape, strides) = dimensions::<N>(name, &array.shape, &array.strides, value)?;
    Ok(View::new(name, data, shape, strides)?)
}

/// A C-contiguous view.
pub(super) fn dense<'a, T: numpy::Element, const N: usize>(
    name: &str,
    value: &'a Bound<'_, PyAny>,
) -> Result<View<'a, T, N>> {
    let (data, shape) = contiguous::<T>(name, value)?;
    let wrong_rank = |_| shape_error(name, format!("{N} dimensions"), value);
    Ok(View::dense(name, data, shape.try_into().map_err(wrong_rank)?)?)
}

/// Runs the body with `q`, `k`, `v` and `out` as slices of their common type.
macro_rules! same_type {
    ($q:expr, $k:expr, $v:expr, $out:expr, $error:expr, |$a:ident, $b:ident, $c:ident, $o:ident| $body:expr) => {
        match ($q, $k, $v, $out) {
            (Floats::F32($a), Floats::F32($b), Floats::F32($c), FloatsMut::F32($o)) => $body,
            (Floats::F16($a), Floats::F16($b), Floats::F16($c), FloatsMut::F16($o)) => $body,
            (Floats::Bf16($a), Floats::Bf16($b), Floats::Bf16($c), FloatsMut::Bf16($o)) => $body,
            _ => Err($error),
        }
    };
}

pub(super) use same_type;

/// Dense decode, or sparse where `selected` is given, into `out` and `lse`.
#[pyfunction]
#[pyo3(signature = (q, k_cache, v_cache, page_table, selected, seq_lens, scale, sinks, out, lse))]
#[allow(clippy::too_many_arguments)]
pub fn decode(
    py: Python<'_>,
    q: &Bound<'_, PyAny>,
    k_cache: &Bound<'_, PyAny>,
    v_cache: &Bound<'_, PyAny>,
    page_table: &Bound<'_, PyAny>,
    selected: Option<&Bound<'_, PyAny>>,
    seq_lens: &Bound<'_, PyAny>,
    scale: f32,
    sinks: Option<&Bound<'_, PyAny>>,
    out: &Bound<'_, PyAny>,
    lse: &Bound<'_, PyAny>,
) -> Result<()> {
    let arrays = (floats("q", q)?, floats("k_cache", k_cache)?, floats("v_cache", v_cache)?);
    let outputs = (floats_mut("out", out)?, contiguous_mut::<f32>("lse", lse)?.0);
    let table =
        PageTable { pages: dense("page_table", page_table)?, seq_lens: contiguous("seq_lens", seq_lens)?.0 };
    let selected = selected.map(|selected| dense::<i32, 3>("selected", selected)).transpose()?;
    let sinks = sinks.map(|sinks| contiguous::<f32>("sinks", sinks)).transpose()?.map(|(sinks, _)| sinks);
    let options = Options { scale, sinks };
    let error = shape_error("k_cache", "the type of q, as v_cache and out", k_cache).into();
    same_type!(arrays.0.data, arrays.1.data, arrays.2.data, outputs.0.data, error, |a, b, c, o| {
        let queries = view::<_, 3>("q", a, &arrays.0, q)?;
        let keys = view::<_, 4>("k_cache", b, &arrays.1, k_cache)?;
        let cache = Cache { keys, values: view::<_, 4>("v_cache", c, &arrays.2, v_cache)? };
        Ok(py.detach(|| match selected {
            None => attention::decode(queries, &cache, &table, &options, o, outputs.1),
            Some(selected) => {
                attention::sparse_decode(queries, &cache, &table, selected, &options, o, outputs.1)
            }
        })?)
    })
}

/// Attention of draft nodes over the prefix and their ancestors, into `out` and `lse`.
#[pyfunction]
#[pyo3(signature = (q, k_cache, v_cache, page_table, tree_mask, k_tree, v_tree, seq_lens, scale, out, lse))]
#[allow(clippy::too_many_arguments)]
pub fn tree_decode(
    py: Python<'_>,
    q: &Bound<'_, PyAny>,
    k_cache: &Bound<'_, PyAny>,
    v_cache: &Bound<'_, PyAny>,
    page_table: &Bound<'_, PyAny>,
    tree_mask: &Bound<'_, PyAny>,
    k_tree: &Bound<'_, PyAny>,
    v_tree: &Bound<'_, PyAny>,
    seq_lens: &Bound<'_, PyAny>,
    scale: f32,
    out: &Bound<'_, PyAny>,
    lse: &Bound<'_, PyAny>,
) -> Result<()> {
    let arrays = (floats("q", q)?, floats("k_cache", k_cache)?, floats("v_cache", v_cache)?);
    let nodes = (floats("k_tree", k_tree)?, floats("v_tree", v_tree)?);
    let outputs = (floats_mut("out", out)?, contiguous_mut::<f32>("lse", lse)?.0);
    let table =
        PageTable { pages: dense("page_table", page_table)?, seq_lens: contiguous("seq_lens", seq_lens)?.0 };
    let mask = dense::<u64, 3>("tree_mask", tree_mask)?;
    let error = shape_error("k_cache", "the type of q, as v_cache, k_tree, v_tree and out", k_cache);
    let (data, tree_data) = (&arrays, (nodes.0.data, nodes.1.data));
    same_type!(data.0.data, data.1.data, data.2.data, outputs.0.data, error.into(), |a, b, c, o| {
        let queries = view::<_, 4>("q", a, &arrays.0, q)?;
        let keys = view::<_, 4>("k_cache", b, &arrays.1, k_cache)?;
        let cache = Cache { keys, values: view::<_, 4>("v_cache", c, &arrays.2, v_cache)? };
        let (Some(k), Some(v)) = (tree_data.0.like(b), tree_data.1.like(b)) else {
            return Err(shape_error("k_tree", "the type of q", k_tree).into());
        };
        let keys = view::<_, 4>("k_tree", k, &nodes.0, k_tree)?;
        let tree = Tree { keys, values: view::<_, 4>("v_tree", v, &nodes.1, v_tree)?, mask };
        Ok(py.detach(|| attention::tree_decode(queries, &cache, &table, &tree, scale, o, outputs.1))?)
    })
}

/// Joins states over disjoint parts, into `out` and `lse_out`.
#[pyfunction]
pub fn merge_states(
    py: Python<'_>,
    v: &Bound<'_, PyAny>,
    lse: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
    lse_out: &Bound<'_, PyAny>,
) -> Result<()> {
    let array = floats("v", v)?;
    let outputs = (floats_mut("out", out)?, contiguous_mut::<f32>("lse_out", lse_out)?.0);
    let (lse, _) = contiguous::<f32>("lse", lse)?;
    let error = shape_error("out", "the type of v", out).into();
    same_type!(array.data, array.data, array.data, outputs.0.data, error, |a, _b, _c, o| {
        let v = view::<_, 4>("v", a, &array, v)?;
        Ok(py.detach(|| attention::merge_states(v, lse, o, outputs.1))?)
    })
}

/// Linear attention with decay into `out`; `state` is read and replaced.
#[pyfunction]
pub fn lightning(
    py: Python<'_>,
    q: &Bound<'_, PyAny>,
    k: &Bound<'_, PyAny>,
    v: &Bound<'_, PyAny>,
    decay: &Bound<'_, PyAny>,
    state: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
) -> Result<()> {
    let arrays = (floats("q", q)?, floats("k", k)?, floats("v", v)?);
    let (decay, _) = contiguous::<f32>("decay", decay)?;
    let (state, _) = contiguous_mut::<f32>("state", state)?;
    let output = floats_mut("out", out)?;
    let error = shape_error("k", "the type of q, as v and out", k).into();
    same_type!(arrays.0.data, arrays.1.data, arrays.2.data, output.data, error, |a, b, c, o| {
        let q = view::<_, 4>("q", a, &arrays.0, q)?;
        let k = view::<_, 4>("k", b, &arrays.1, k)?;
        let v = view::<_, 4>("v", c, &arrays.2, v)?;
        Ok(py.detach(|| kernels::lightning::lightning(q, k, v, decay, state, o))?)
    })
}
