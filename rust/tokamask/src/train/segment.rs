//! Ways to cut a word into scored pieces: the best, the two best, and the expectation over all.

use rustc_hash::FxHashMap;

use super::unigram::Piece;

/// How much worse than the worst piece an unknown character is.
const UNKNOWN_PENALTY: f64 = 10.0;

/// Pieces in a trie.
pub struct Segmenter<'a> {
    pieces: &'a [Piece],
    /// Node and character to node.
    children: FxHashMap<u64, u32>,
    /// Piece that ends at each node.
    ends: Vec<Option<u32>>,
    unknown: f64,
}

/// A piece at a place of the word.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    start: u32,
    end: u32,
    /// Number of the piece; the number of pieces stands for an unknown character.
    pub piece: u32,
    score: f64,
}

impl<'a> Segmenter<'a> {
    /// Reads the pieces.
    pub fn new(pieces: &'a [Piece]) -> Self {
        let least = pieces.iter().map(|&(_, score)| score).fold(f64::INFINITY, f64::min);
        let mut segmenter = Self {
            pieces,
            children: FxHashMap::default(),
            ends: vec![None],
            unknown: least - UNKNOWN_PENALTY,
        };
        for (nth, (piece, _)) in (0u32..).zip(pieces) {
            let mut node = 0;
            for &letter in piece {
                let next = segmenter.ends.len() as u32;
                let found = *segmenter.children.entry(step(node, letter)).or_insert(next);
                if found == next {
                    segmenter.ends.push(None);
                }
                node = found;
            }
            segmenter.ends[node as usize] = Some(nth);
        }
        segmenter
    }

    /// An empty lattice.
    pub fn lattice(&self) -> Lattice<'_> {
        Lattice { segmenter: self, length: 0, edges: Vec::new(), forward: Vec::new(), backward: Vec::new() }
    }
}

fn step(node: u32, letter: char) -> u64 {
    u64::from(node) << 32 | u64::from(u32::from(letter))
}

/// All pieces at all places of a word.
pub struct Lattice<'a> {
    segmenter: &'a Segmenter<'a>,
    length: usize,
    /// In order of their starts, then ends.
    edges: Vec<Edge>,
    forward: Vec<f64>,
    backward: Vec<f64>,
}

impl Lattice<'_> {
    /// Finds the pieces in a word.
    pub fn read(&mut self, word: &[char]) {
        let Segmenter { pieces, children, ends, unknown } = self.segmenter;
        self.length = word.len();
        self.edges.clear();
        for start in 0..word.len() {
            let (mut node, mut single) = (0, false);
            for (end, &letter) in (start as u32 + 1..).zip(&word[start..]) {
                let Some(&next) = children.get(&step(node, letter)) else { break };
                node = next;
                if let Some(piece) = ends[node as usize] {
                    let score = pieces[piece as usize].1;
                    self.edges.push(Edge { start: start as u32, end, piece, score });
                    single |= end == start as u32 + 1;
                }
            }
            if !single {
                let (start, piece) = (start as u32, pieces.len() as u32);
                self.edges.push(Edge { start, end: start + 1, piece, score: *unknown });
            }
        }
    }

    /// The likeliest way; of equals the one whose last pieces start first.
    pub fn best(&self) -> Vec<Edge> {
        let mut ways: Vec<Option<(f64, Edge)>> = vec![None; self.length + 1];
        for &edge in &self.edges {
            let before = ways[edge.start as usize].map_or(0.0, |(score, _)| score);
            let way = &mut ways[edge.end as usize];
            if way.is_none_or(|(score, _)| before + edge.score > score) {
                *way = Some((before + edge.score, edge));
            }
        }
        let mut path = Vec::new();
        let mut at = self.length;
        while let Some((_, edge)) = ways[at] {
            path.push(edge);
            at = edge.start as usize;
        }
        path.reverse();
        path
    }

    /// The two likeliest ways, if there are two.
    pub fn two_best(&self) -> (Vec<Edge>, Option<Vec<Edge>>) {
        // By place: score, last piece and which of the ways before it, of the best two.
        let mut ways: Vec<[Option<(f64, Edge, usize)>; 2]> = vec![[None; 2]; self.length + 1];
        for &edge in &self.edges {
            for rank in 0..2 {
                let before = match ways[edge.start as usize][rank] {
                    Some((score, ..)) => score,
                    None if edge.start == 0 && rank == 0 => 0.0,
                    None => break,
                };
                let way = (before + edge.score, edge, rank);
                let [best, second] = &mut ways[edge.end as usize];
                if best.is_none_or(|(score, ..)| way.0 > score) {
                    *second = best.replace(way);
                } else if second.is_none_or(|(score, ..)| way.0 > score) {
                    *second = Some(way);
                }
            }
        }
        let path = |mut rank: usize| {
            let mut path = Vec::new();
            let mut at = self.length;
            while let Some((_, edge, before)) = ways[at][rank] {
                path.push(edge);
                (at, rank) = (edge.start as usize, before);
            }
            path.reverse();
            path
        };
        (path(0), ways[self.length][1].map(|_| path(1)))
    }

    /// Adds `count` times the probability of each edge, over all ways, to what is expected of its piece.
    pub fn expect(&mut self, count: f64, expected: &mut [f64]) {
        let size = self.length + 1;
        for scores in [&mut self.forward, &mut self.backward] {
            scores.clear();
            scores.resize(size, f64::NEG_INFINITY);
        }
        self.forward[0] = 0.0;
        self.backward[self.length] = 0.0;
        for edge in &self.edges {
            let sum = self.forward[edge.start as usize] + edge.score;
            let end = &mut self.forward[edge.end as usize];
            *end = log_add(*end, sum);
        }
        // Edges are sorted by start, so backwards every edge's end is complete.
        for edge in self.edges.iter().rev() {
            let sum = self.backward[edge.end as usize] + edge.score;
            let start = &mut self.backward[edge.start as usize];
            *start = log_add(*start, sum);
        }
        let all = self.forward[self.length];
        for edge in &self.edges {
            let way = self.forward[edge.start as usize] + edge.score + self.backward[edge.end as usize];
            expected[edge.piece as usize] += count * (way - all).exp();
        }
    }
}

/// The logarithm of the sum of two numbers given by their logarithms.
fn log_add(a: f64, b: f64) -> f64 {
    let (less, more) = if a < b { (a, b) } else { (b, a) };
    if less == f64::NEG_INFINITY {
        return more;
    }
    more + (less - more).exp().ln_1p()
}
