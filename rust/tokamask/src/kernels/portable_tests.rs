//! Plain lanes against AVX2: equal bits where that is promised, equal within rounding elsewhere. Where there is no AVX2, a test
//! compares plain lanes with themselves.

use proptest::prelude::*;

use super::array::{Floats, FloatsMut, View};
use super::attention::{decode, sparse_decode, tree_decode, Cache, Options, PageTable, Tree};
use super::bitmask::{self, MaskRows};
use super::floats::{Bf16, Float, F16};
use super::lanes::portable::both;
use super::penalties::Penalties;
use super::sampling::{sample, Law};
use super::{greedy, press, selection};

fn numbers(n: usize) -> impl Strategy<Value = Vec<f32>> {
    let special = prop_oneof![Just(f32::NEG_INFINITY), Just(f32::NAN), Just(0.0), Just(-0.0), Just(3.0)];
    prop::collection::vec(prop_oneof![8 => -20.0f32..20.0, 1 => special], n)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn samples_are_equal(
        logits in (1usize..1500).prop_flat_map(numbers), words in prop::collection::vec(any::<i32>(), 47), masked: bool,
        temperature in prop_oneof![Just(0.0f32), 0.1f32..3.0], top_k in prop_oneof![Just(0), 1i32..600],
        top_p in 0.01f32..1.1, min_p in prop_oneof![Just(0.0f32), 0.0f32..0.5], seed: u64, half: bool,
    ) {
        let n = logits.len();
        let words = &words[..n.div_ceil(32)];
        let masks = masked.then(|| MaskRows::new(words, None, 1, n).expect("fits"));
        let penalties = Penalties::OFF;
        let law = Law { temperature, top_k, top_p, min_p, seed, stream: 0, step: 0, penalties };
        let brief: Vec<Bf16> = logits.iter().map(|x| Bf16::narrow(*x)).collect();
        let given = if half { Floats::Bf16(&brief) } else { Floats::F32(&logits) };
        let [fast, plain] = both(|| sample(given, [1, n], n, masks.as_ref(), None, &[law]).expect("fits"));
        prop_assert_eq!(fast[0].0, plain[0].0);
        prop_assert_eq!(fast[0].1.to_bits(), plain[0].1.to_bits());
    }

    #[test]
    fn selections_and_masks_are_equal(
        scores in (1usize..12_000).prop_flat_map(numbers), k in 0usize..3000, words in prop::collection::vec(any::<i32>(), 375),
    ) {
        let n = scores.len();
        let [fast, plain] = both(|| {
            let mut out = vec![0; k];
            selection::top_k(Floats::F32(&scores), [1, n], n, k, None, &mut out).expect("fits");
            out
        });
        prop_assert_eq!(fast, plain);
        let masks = MaskRows::new(&words[..n.div_ceil(32)], None, 1, n).expect("fits");
        let [fast, plain] = both(|| {
            let mut out = scores.clone();
            bitmask::apply(FloatsMut::F32(&mut out), [1, n], n, &masks).expect("fits");
            out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        });
        prop_assert_eq!(fast, plain);
    }

    #[test]
    fn widening_is_equal(bits in prop::collection::vec(any::<u16>(), 1..200)) {
        let halves: Vec<F16> = bits.iter().map(|b| F16(*b)).collect();
        let [fast, plain] = both(|| {
            let mut out = Vec::new();
            super::blocks::widen_all(&halves, &mut out);
            // A processor may set the quiet bit of a NaN on the way.
            out.into_iter().map(|x: f32| if x.is_nan() { 0 } else { x.to_bits() }).collect::<Vec<_>>()
        });
        prop_assert_eq!(fast, plain);
    }

    #[test]
    fn attention_agrees_within_rounding(
        length in 1usize..80, dim in 1usize..40, seed in 0u32..1000, listed: bool,
    ) {
        let value = |i: usize| ((i as f32 + seed as f32) * 0.7).sin();
        let k: Vec<f32> = (0..length * 2 * dim).map(value).collect();
        let q: Vec<f32> = (0..6 * dim).map(|i| value(i * 3 + 1) * 4.0).collect();
        let (lengths, pages) = ([length as i32], [0]);
        let keys = View::dense("k", &k, [1, length, 2, dim]).expect("fits");
        let cache = Cache { keys, values: keys };
        let table = PageTable { pages: View::dense("pages", &pages, [1, 1]).expect("fits"), seq_lens: &lengths };
        let options = Options { scale: 0.4, sinks: None };
        let selected: Vec<i32> = (0..2 * length as i32).map(|i| i * 7 % length as i32).collect();
        let selected = View::dense("selected", &selected, [1, 2, length]).expect("fits");
        let queries = View::dense("q", &q, [1, 6, dim]).expect("fits");
        let [fast, plain] = both(|| {
            let (mut out, mut lse) = (vec![0.0; 6 * dim], vec![0.0; 6]);
            if listed {
                sparse_decode(queries, &cache, &table, selected, &options, &mut out, &mut lse).expect("fits");
            } else {
                decode(queries, &cache, &table, &options, &mut out, &mut lse).expect("fits");
            }
            out.extend(lse);
            out
        });
        for (a, b) in fast.iter().zip(&plain) {
            prop_assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{a} {b}");
        }
    }
}

/// Decode, sparse decode and tree decode of one cache, with plain lanes and with the widest there are.
fn attend_both<T: Float>(
    length: usize,
    heads: usize,
    [head_dim, v_dim]: [usize; 2],
    group: usize,
) -> [Vec<f32>; 2] {
    let value = |i: usize| T::narrow((i as f32 * 0.7).sin());
    let k: Vec<T> = (0..length * heads * head_dim).map(value).collect();
    let v: Vec<T> = (0..length * heads * v_dim).map(|i| value(i * 5 + 2)).collect();
    let q_heads = heads * group;
    let q: Vec<T> = (0..2 * q_heads * head_dim).map(|i| value(i * 3 + 1)).collect();
    let (lengths, pages) = ([length as i32], [0]);
    let keys = View::dense("k", &k, [1, length, heads, head_dim]).expect("fits");
    let values = View::dense("v", &v, [1, length, heads, v_dim]).expect("fits");
    let cache = Cache { keys, values };
    let table = PageTable { pages: View::dense("pages", &pages, [1, 1]).expect("fits"), seq_lens: &lengths };
    let options = Options { scale: 0.3, sinks: None };
    let selected: Vec<i32> = (0..heads * length).map(|i| (i * 7 % length) as i32).collect();
    let selected = View::dense("selected", &selected, [1, heads, length]).expect("fits");
    let one = View::dense("q", &q[..q_heads * head_dim], [1, q_heads, head_dim]).expect("fits");
    let two = View::dense("q", &q, [1, 2, q_heads, head_dim]).expect("fits");
    let own = |data, dim| View::dense("own", data, [1, 2, heads, dim]).expect("fits");
    let tree_mask = [1u64, 3];
    let tree = Tree {
        keys: own(&k[..2 * heads * head_dim], head_dim),
        values: own(&v[..2 * heads * v_dim], v_dim),
        mask: View::dense("mask", &tree_mask, [1, 2, 1]).expect("fits"),
    };
    both(|| {
        let mut all = Vec::new();
        let n = q_heads * v_dim;
        let (mut out, mut lse) = (vec![T::narrow(0.0); 2 * n], vec![0.0; 2 * q_heads]);
        decode(one, &cache, &table, &options, &mut out[..n], &mut lse[..q_heads]).expect("fits");
        all.extend(out[..n].iter().map(|x| x.widen()).chain(lse[..q_heads].iter().copied()));
        sparse_decode(one, &cache, &table, selected, &options, &mut out[..n], &mut lse[..q_heads])
            .expect("fits");
        all.extend(out[..n].iter().map(|x| x.widen()).chain(lse[..q_heads].iter().copied()));
        tree_decode(two, &cache, &table, &tree, 0.3, &mut out, &mut lse).expect("fits");
        all.extend(out.iter().map(|x| x.widen()).chain(lse.iter().copied()));
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Sizes that AVX-512 takes: a cache of every type, one to six query heads to a KV head, any number of tokens.
    #[test]
    fn wide_steps_agree_within_rounding(
        length in 2usize..80, heads in 1usize..4, head_dim in prop_oneof![Just(32usize), Just(64), Just(128)],
        v_dim in prop_oneof![Just(16usize), Just(64), Just(80), Just(128)], group in 1usize..7,
    ) {
        let dims = [head_dim, v_dim];
        let near = |[fast, plain]: [Vec<f32>; 2], within: f32| {
            fast.iter().zip(&plain).all(|(a, b)| (a - b).abs() <= within * (1.0 + b.abs()))
        };
        prop_assert!(near(attend_both::<f32>(length, heads, dims, group), 1e-5));
        prop_assert!(near(attend_both::<F16>(length, heads, dims, group), 2e-3)); // results are rounded
        prop_assert!(near(attend_both::<Bf16>(length, heads, dims, group), 1e-2));
    }
}

#[test]
fn scores_of_keys_and_choices_agree() {
    let x: Vec<f32> =
        (0..60 * 24).map(|i| (i as f32 * 0.37).sin() + if i / 24 % 7 == 0 { 1.0 } else { 0.0 }).collect();
    let keys = View::dense("k", &x, [30, 2, 24]).expect("fits");
    let [fast, plain] = both(|| {
        let mut out = vec![0.0; 60];
        press::keydiff_scores(keys, &mut out).expect("fits");
        out
    });
    assert!(fast.iter().zip(&plain).all(|(a, b): (&f32, &f32)| (a - b).abs() < 1e-5));
    let rows = View::dense("x", &x, [60, 24]).expect("fits");
    let [fast, plain] = both(|| {
        let mut out = vec![0; 9];
        greedy::greedy_select(rows, greedy::Gain::MaxMin, &mut out).expect("fits");
        out
    });
    assert_eq!(fast, plain);
}
