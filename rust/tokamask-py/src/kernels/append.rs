//! Appending to a paged cache. Keys and values may be views of one array, so each output is borrowed in a call of its own.

#![allow(clippy::needless_pass_by_value)] // tuples are made for the call

use pyo3::prelude::*;
use tokamask::kernels::append::{self, CacheMut, Place};
use tokamask::kernels::array::{each_float, Floats, FloatsMut};
use tokamask::kernels::attention::PageTable;

use super::attention::{dense, view};
use crate::arrays::{contiguous, contiguous_mut, dimensions, floats, floats_mut, shape_error};
use crate::errors::Result;

/// Page table, lengths afterwards, and which rows each sequence gets.
type Where<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

fn places(rows: usize, size: [usize; 2], (table, lengths, indptr): &Where<'_>) -> Result<Vec<Place>> {
    let seq_lens = contiguous("seq_lens", lengths)?.0;
    let table = PageTable { pages: dense("page_table", table)?, seq_lens };
    Ok(append::places(&table, contiguous("indptr", indptr)?.0, rows, size)?)
}

/// Runs the body with rows of three dimensions and a cache of four, of one type.
macro_rules! rows_and_cache {
    ($rows:expr, $cache:expr, $where:expr, |$a:ident, $c:ident, $p:ident| $body:expr) => {{
        let (rows, cache) = (floats("rows", $rows)?, floats_mut("cache", $cache)?);
        let (shape, strides) = dimensions::<4>("cache", &cache.shape, &cache.strides, $cache)?;
        let $p = &places(rows.shape.first().copied().unwrap_or(0), [shape[0], shape[1]], $where)?;
        macro_rules! run {
            ($x:expr, $y:expr) => {{
                let $a = view::<_, 3>("rows", $x, &rows, $rows)?;
                let $c = &mut CacheMut::new("cache", $y, shape, strides)?;
                Ok($body?)
            }};
        }
        match (rows.data, cache.data) {
            (Floats::F32(x), FloatsMut::F32(y)) => run!(x, y),
            (Floats::F16(x), FloatsMut::F16(y)) => run!(x, y),
            (Floats::Bf16(x), FloatsMut::Bf16(y)) => run!(x, y),
            _ => Err(shape_error("cache", "the type of the rows", $cache).into()),
        }
    }};
}

/// Writes rows [rows, heads, dim] behind what each sequence holds.
#[pyfunction]
pub fn append_rows(
    py: Python<'_>,
    rows: &Bound<'_, PyAny>,
    cache: &Bound<'_, PyAny>,
    r#where: Where<'_>,
) -> Result<()> {
    rows_and_cache!(rows, cache, &r#where, |a, c, p| py.detach(|| append::write_rows(a, c, p)))
}

/// Writes the channels of the dominant chunks of each row.
#[pyfunction]
pub fn append_chunks(
    py: Python<'_>,
    rows: &Bound<'_, PyAny>,
    dominant: &Bound<'_, PyAny>,
    interleaved: bool,
    cache: &Bound<'_, PyAny>,
    r#where: Where<'_>,
) -> Result<()> {
    let dominant = dense::<i32, 2>("dominant", dominant)?;
    rows_and_cache!(rows, cache, &r#where, |a, c, p| {
        py.detach(|| append::write_chunks(a, dominant, interleaved, c, p))
    })
}

/// Widens the bounds of the pages touched.
#[pyfunction]
pub fn append_bounds(
    rows: &Bound<'_, PyAny>,
    low: &Bound<'_, PyAny>,
    high: &Bound<'_, PyAny>,
    size: [usize; 2],
    r#where: Where<'_>,
) -> Result<()> {
    let array = floats("rows", rows)?;
    let (low, high) =
        (contiguous_mut::<f32>("bounds[0]", low)?.0, contiguous_mut::<f32>("bounds[1]", high)?.0);
    each_float!(array.data, a => {
        let a = view::<_, 3>("rows", a, &array, rows)?;
        Ok(append::widen_bounds(a, low, high, &places(a.shape[0], size, &r#where)?)?)
    })
}

/// Adds rows [rows, 1, dim] to the sums of their pages.
#[pyfunction]
pub fn append_sums(
    rows: &Bound<'_, PyAny>,
    sums: &Bound<'_, PyAny>,
    size: [usize; 2],
    r#where: Where<'_>,
) -> Result<()> {
    let array = floats("rows", rows)?;
    let (sums, _) = contiguous_mut::<f32>("index[2]", sums)?;
    each_float!(array.data, a => {
        let a = view::<_, 3>("rows", a, &array, rows)?;
        Ok(append::add_sums(a, sums, &places(a.shape[0], size, &r#where)?)?)
    })
}
