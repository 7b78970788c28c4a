//! Plain lanes against AVX2: equal bits where that is promised, equal within rounding elsewhere. Where there is no AVX2, a test
//! compares plain lanes with themselves.

use proptest::prelude::*;

use super::array::{Floats, FloatsMut, View};
use super::attention::{decode, sparse_decode, Cache, Options, PageTable};
use super::bitmask::{self, MaskRows};
use super::floats::{Bf16, Float, F16};
use super::lanes::portable::both;
use super::penalties::Penalties;
use super::sampling::{sample, Law};
use super::{press, reduction, selection};

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
        reduction::greedy_select(rows, reduction::Gain::MaxMin, &mut out).expect("fits");
        out
    });
    assert_eq!(fast, plain);
}
