//! Which frequency chunks of RoPE speak for all channels (`python/tokamask/reference/fasa.py`).

use super::array::View;
use super::attention::mismatch;
use super::floats::Float;
use super::lanes::{dispatch, Lanes};
use super::selection::{top_k_row, Scratch};
use super::threads;
use crate::error::ShapeError;

/// Buffers of one thread.
#[derive(Default)]
struct Buffers {
    sums: Vec<f64>,
    scores: Vec<f32>,
    chosen: Vec<i32>,
    is_best: Vec<bool>,
    selection: Scratch,
}

impl Buffers {
    /// The `top` tokens by the sums, -1 padded.
    fn choose(&mut self, top: usize) {
        self.scores.clear();
        self.scores.extend(self.sums.iter().map(|x| *x as f32));
        self.chosen.resize(top, -1);
        top_k_row(&self.scores, top, &mut self.selection, &mut self.chosen);
    }
}

/// For each KV head the `n_chunks` chunks, ascending, whose scores agree best with all channels' about the `top` tokens: `q`
/// `[samples, num_q_heads, head_dim]`, `k` `[tokens, num_kv_heads, head_dim]`, both after RoPE.
pub fn fasa_calibrate<T: Float>(
    q: View<T, 3>,
    k: View<T, 3>,
    n_chunks: usize,
    top: usize,
    interleaved: bool,
) -> Result<Vec<i32>, ShapeError> {
    let ([samples, num_q_heads, dim], [tokens, heads, key_dim]) = (q.shape, k.shape);
    if heads == 0 || num_q_heads % heads != 0 || dim != key_dim || tokens > i32::MAX as usize {
        let expected = format!("a multiple of {heads} heads of {key_dim}");
        return Err(mismatch("q", expected, format!("{num_q_heads} heads of {dim}")));
    }
    let (half, group) = (dim / 2, num_q_heads / heads);
    let n_chunks = n_chunks.min(half);
    if n_chunks == 0 {
        return Ok(Vec::new());
    }
    // Keys channel by channel.
    let mut turned = vec![0.0f32; heads * dim * tokens];
    for t in 0..tokens {
        for head in 0..heads {
            for (c, x) in k.row([t, head, 0]).iter().enumerate() {
                turned[(head * dim + c) * tokens + t] = x.widen();
            }
        }
    }
    let channel = |head: usize, c: usize| &turned[(head * dim + c) * tokens..][..tokens];
    // Tokens in common, by query head, sample and chunk.
    let mut common = vec![0u64; num_q_heads * samples * half];
    let work = common.len() * tokens * 16;
    threads::each_chunk(work, &mut common, half, Buffers::default, |buffers, i, common| {
        let (h, sample) = (i / samples, i % samples);
        let (head, query) = (h / group, q.row([sample, h, 0]));
        buffers.sums.clear();
        buffers.sums.resize(tokens, 0.0);
        for (c, x) in query.iter().enumerate() {
            add_scaled(&mut buffers.sums, f64::from(x.widen()), channel(head, c));
        }
        buffers.choose(top);
        buffers.is_best.clear();
        buffers.is_best.resize(tokens, false);
        for t in buffers.chosen.iter().filter_map(|t| usize::try_from(*t).ok()) {
            buffers.is_best[t] = true;
        }
        for (chunk, common) in common.iter_mut().enumerate() {
            let pair = if interleaved { [2 * chunk, 2 * chunk + 1] } else { [chunk, chunk + half] };
            buffers.sums.fill(0.0);
            for c in pair {
                add_scaled(&mut buffers.sums, f64::from(query[c].widen()), channel(head, c));
            }
            buffers.choose(top);
            let found = buffers.chosen.iter().filter_map(|t| usize::try_from(*t).ok());
            *common = found.filter(|t| buffers.is_best[*t]).count() as u64;
        }
    });
    let mut chosen = vec![0; heads * n_chunks];
    let mut selection = Scratch::default();
    for (head, chosen) in chosen.chunks_exact_mut(n_chunks).enumerate() {
        let common = &common[head * group * samples * half..][..group * samples * half];
        let agreement: Vec<f32> =
            (0..half).map(|chunk| common.iter().skip(chunk).step_by(half).sum::<u64>() as f32).collect();
        top_k_row(&agreement, n_chunks, &mut selection, chosen);
    }
    Ok(chosen)
}

fn add_scaled(sums: &mut [f64], factor: f64, channel: &[f32]) {
    dispatch!(add_kernel(sums: &mut [f64], factor: f64, channel: &[f32]));
}

#[inline(always)]
unsafe fn add_kernel<L: Lanes>(sums: &mut [f64], factor: f64, channel: &[f32]) {
    for (sum, x) in sums.iter_mut().zip(channel) {
        *sum += factor * f64::from(*x);
    }
}
