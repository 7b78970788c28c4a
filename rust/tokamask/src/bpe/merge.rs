//! Merging one piece: the definition of BPE, for short pieces by scanning, for long ones by a heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::pairs::Pairs;
use super::NONE;

/// Up to this many symbols a scan beats the heap.
pub const SMALL: usize = 48;

/// Replaces the symbols by what merging leaves.
pub fn encode(pairs: &Pairs, symbols: &mut Vec<u32>) {
    if symbols.len() > SMALL {
        long(pairs, symbols);
    } else {
        small(pairs, symbols);
    }
}

/// The definition, read literally; `ranks[i]` is what symbols `i` and `i + 1` merge into.
pub fn small(pairs: &Pairs, symbols: &mut Vec<u32>) {
    let (mut few, mut many) = ([NONE; SMALL], Vec::new());
    let ranks = if symbols.len() <= SMALL {
        &mut few[..symbols.len().saturating_sub(1)]
    } else {
        many.resize(symbols.len() - 1, NONE);
        &mut many[..]
    };
    for (rank, pair) in ranks.iter_mut().zip(symbols.windows(2)) {
        *rank = pairs.get(pair[0], pair[1]);
    }
    let mut left = ranks.len();
    while let Some((at, &symbol)) = ranks[..left].iter().enumerate().min_by_key(|&(_, &rank)| rank) {
        if symbol == NONE {
            break;
        }
        symbols[at] = symbol;
        symbols.copy_within(at + 2..=left, at + 1);
        ranks.copy_within(at + 1..left, at);
        left -= 1;
        if at < left {
            ranks[at] = pairs.get(symbol, symbols[at + 1]);
        }
        if at > 0 {
            ranks[at - 1] = pairs.get(symbols[at - 1], symbol);
        }
    }
    if !symbols.is_empty() {
        symbols.truncate(left + 1);
    }
}

/// The same by a heap over a linked list: O(n log n).
pub fn long(pairs: &Pairs, symbols: &mut Vec<u32>) {
    const END: u32 = u32::MAX;
    let count = symbols.len() as u32;
    let mut next: Vec<u32> = (1..count).chain([END]).collect();
    let mut previous: Vec<u32> = [END].into_iter().chain(0..count.saturating_sub(1)).collect();
    let mut heap: BinaryHeap<Reverse<(u32, u32)>> = (0..count.saturating_sub(1))
        .map(|at| (pairs.get(symbols[at as usize], symbols[at as usize + 1]), at))
        .filter(|&(symbol, _)| symbol != NONE)
        .map(Reverse)
        .collect();
    while let Some(Reverse((symbol, at))) = heap.pop() {
        let right = next[at as usize];
        // An entry is stale if either side has changed since it was queued.
        if symbols[at as usize] == NONE
            || right == END
            || pairs.get(symbols[at as usize], symbols[right as usize]) != symbol
        {
            continue;
        }
        symbols[at as usize] = symbol;
        symbols[right as usize] = NONE;
        let after = next[right as usize];
        next[at as usize] = after;
        let mut queue = |left: u32, right: u32| {
            let symbol = pairs.get(symbols[left as usize], symbols[right as usize]);
            if symbol != NONE {
                heap.push(Reverse((symbol, left)));
            }
        };
        if after != END {
            previous[after as usize] = at;
            queue(at, after);
        }
        if previous[at as usize] != END {
            queue(previous[at as usize], at);
        }
    }
    symbols.retain(|&symbol| symbol != NONE);
}
