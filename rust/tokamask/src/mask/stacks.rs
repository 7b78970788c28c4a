//! Stacks of frames, hash-consed: equal stacks have equal numbers, so they are compared, copied and
//! kept as numbers.
//!
//! Where a grammar is ambiguous the same top may stand on several stacks. Such a group of stacks is
//! a stack as well: frames that occur in several of them are joined from the top down, so what is
//! below a state is a small graph and not a list of all its readings.

use rustc_hash::FxHashMap;

use crate::mask::recognizer::{Frame, Thread, BOTTOM, DONE};

/// Marks the numbers of groups.
const GROUP: u32 = 1 << 31;
/// Joined frames below each other; further down stacks stay apart, which is as exact.
const MAX_JOINED: usize = 1_000;
/// Stacks whose depth is recorded one by one; beyond, all that is below counts as looked at.
const MAX_RECORDED: usize = 256;
/// The depth of everything.
pub const ALL: usize = usize::MAX;
/// In a list of stacks: everything below the next one.
const WHOLE: u32 = u32::MAX;
/// Where a stack ends, in cuts.
const END: Frame =
    Frame { node: u32::MAX, state: 0, seen: 0, q: 0, partial: 0, count: 0, text: 0, names: 0, kind: 0 };

/// What is known of one stack while the depth of looking is recorded.
pub struct Level {
    stack: u32,
    depth: usize,
    opened: bool,
}

/// A record that waits.
pub type Record = (Vec<Level>, usize);

/// All stacks of one compiled grammar.
#[derive(Default)]
pub struct Stacks {
    nodes: Vec<(Frame, u32)>,
    ids: FxHashMap<(Frame, u32), u32>,
    groups: Vec<Box<[u32]>>,
    group_ids: FxHashMap<Box<[u32]>, u32>,
    /// The stack for two, and whether frames below the first were joined.
    joins: FxHashMap<(u32, u32), (u32, bool)>,
    cuts: FxHashMap<(u32, u32), u32>,
    cut_ids: FxHashMap<Box<[(Frame, u32)]>, u32>,
    /// The stacks below a thread whose row is being computed, and how deep they were looked into.
    levels: Vec<Level>,
    touched: usize,
    /// Stacks looked into, while somebody records them.
    log: Vec<u32>,
    logging: usize,
}

impl Stacks {
    /// The number of a frame on a stack.
    pub fn push(&mut self, frame: Frame, parent: u32) -> u32 {
        let nodes = &mut self.nodes;
        *self.ids.entry((frame, parent)).or_insert_with(|| {
            nodes.push((frame, parent));
            nodes.len() as u32
        })
    }

    /// The `i`-th of the simple stacks that a stack stands for.
    #[inline]
    pub fn member(&self, stack: u32, i: usize) -> Option<u32> {
        if stack & GROUP == 0 {
            (i == 0).then_some(stack)
        } else {
            self.groups[(stack & !GROUP) as usize].get(i).copied()
        }
    }

    /// The frame and the rest of a simple stack that is not empty.
    pub fn frame(&self, stack: u32) -> (Frame, u32) {
        self.nodes[stack as usize - 1]
    }

    /// The thread that goes on with a simple stack.
    pub fn thread(&self, stack: u32) -> Thread {
        if stack == BOTTOM {
            return Thread { top: Frame::start(DONE), parent: BOTTOM };
        }
        let (top, parent) = self.frame(stack);
        Thread { top, parent }
    }

    /// Begins to record how deep a stack is looked into.
    pub fn watch(&mut self, parent: u32) {
        self.levels.clear();
        self.levels.push(Level { stack: parent, depth: 0, opened: false });
        self.touched = 0;
    }

    /// Ends the record; returns how many frames below the top were looked at.
    pub fn unwatch(&mut self) -> usize {
        self.levels.clear();
        self.touched
    }

    /// Begins a record of its own inside another; see [`Self::go_back`].
    pub fn watch_apart(&mut self, parent: u32) -> Record {
        let outer = (std::mem::take(&mut self.levels), self.touched);
        self.watch(parent);
        outer
    }

    /// Ends a record inside another and goes on with that; returns the depth of the inner one.
    pub fn go_back(&mut self, outer: Record) -> usize {
        let depth = self.touched;
        (self.levels, self.touched) = outer;
        depth
    }

    /// Says that the first frames of a stack were looked at.
    pub fn note(&mut self, stack: u32) {
        if self.logging > 0 {
            self.log.push(stack);
        }
        if self.levels.len() > MAX_RECORDED {
            self.touched = ALL;
        }
        if self.touched == ALL {
            return;
        }
        let mut i = 0;
        while i < self.levels.len() {
            let Level { stack: known, depth, opened } = self.levels[i];
            if known == stack && !opened {
                self.levels[i].opened = true;
                self.touched = self.touched.max(depth + 1);
                let mut k = 0;
                while let Some(member) = self.member(stack, k) {
                    if member != BOTTOM {
                        let below = self.frame(member).1;
                        self.levels.push(Level { stack: below, depth: depth + 1, opened: false });
                    }
                    k += 1;
                }
            }
            i += 1;
        }
    }

    /// Says that everything below was looked at.
    fn note_whole(&mut self, stack: u32) {
        if self.logging > 0 {
            self.log.extend([WHOLE, stack]);
        }
        if !self.levels.is_empty() {
            self.touched = ALL;
        }
    }

    /// Begins to list the stacks that are looked into; see [`Self::listed`].
    pub fn list(&mut self) -> usize {
        self.logging += 1;
        self.log.len()
    }

    /// The stacks looked into since the matching [`Self::list`].
    pub fn listed(&mut self, from: usize, whole: u32) -> Box<[u32]> {
        self.logging -= 1;
        let mut found = self.log[from..].to_vec();
        if self.logging == 0 {
            self.log.clear();
        }
        found.dedup();
        if found.len() > MAX_RECORDED {
            found = vec![WHOLE, whole];
        }
        found.into()
    }

    /// Looks again into what was listed.
    pub fn note_all(&mut self, listed: &[u32]) {
        if !self.levels.is_empty() || self.logging > 0 {
            let mut list = listed.iter();
            while let Some(&stack) = list.next() {
                match (stack, list.as_slice().first()) {
                    (WHOLE, Some(&whole)) => {
                        self.note_whole(whole);
                        list.next();
                    }
                    _ => self.note(stack),
                }
            }
        }
    }

    /// One stack for two.
    pub fn join(&mut self, a: u32, b: u32) -> u32 {
        self.join_members(a, b, 0)
    }

    fn join_members(&mut self, a: u32, b: u32, depth: usize) -> u32 {
        if a == b {
            return a;
        }
        let key = (a.min(b), a.max(b));
        if let Some(&(joined, deeper)) = self.joins.get(&key) {
            for stack in [a, b] {
                if deeper {
                    self.note_whole(stack);
                } else {
                    self.note(stack);
                }
            }
            return joined;
        }
        self.note(a);
        self.note(b);
        let mut deeper = false;
        let mut members: Vec<u32> = Vec::new();
        for stack in [a, b] {
            let mut i = 0;
            while let Some(member) = self.member(stack, i) {
                members.push(member);
                i += 1;
            }
        }
        members.sort_unstable();
        members.dedup();
        if depth < MAX_JOINED {
            // Equal frames become one, on what is below all of them.
            let mut by_frame: Vec<(Option<Frame>, u32)> = members
                .iter()
                .map(|&m| if m == BOTTOM { (None, BOTTOM) } else { (Some(self.frame(m).0), self.frame(m).1) })
                .collect();
            by_frame.sort_unstable();
            members.clear();
            let mut i = 0;
            while i < by_frame.len() {
                let (frame, mut below) = by_frame[i];
                i += 1;
                while i < by_frame.len() && by_frame[i].0 == frame {
                    deeper = true;
                    below = self.join_members(below, by_frame[i].1, depth + 1);
                    i += 1;
                }
                members.push(frame.map_or(BOTTOM, |frame| self.push(frame, below)));
            }
            members.sort_unstable();
        }
        let joined = if let [only] = members[..] {
            only
        } else {
            let groups = &mut self.groups;
            *self.group_ids.entry(members.into()).or_insert_with_key(|members| {
                groups.push(members.clone());
                GROUP | (groups.len() as u32 - 1)
            })
        };
        self.joins.insert(key, (joined, deeper));
        joined
    }

    /// Joins the threads from place `from` on that differ only below the top.
    pub fn join_threads(&mut self, threads: &mut Vec<Thread>, from: usize) {
        if threads.len() < from + 2 {
            return;
        }
        if threads.len() - from > 16 {
            let mut places: FxHashMap<Frame, usize> = FxHashMap::default();
            let all = threads.split_off(from);
            for thread in all {
                if let Some(&place) = places.get(&thread.top) {
                    threads[place].parent = self.join(threads[place].parent, thread.parent);
                } else {
                    places.insert(thread.top, threads.len());
                    threads.push(thread);
                }
            }
            return;
        }
        let mut i = from + 1;
        while i < threads.len() {
            match threads[from..i].iter().position(|t| t.top == threads[i].top) {
                Some(k) => {
                    threads[from + k].parent = self.join(threads[from + k].parent, threads[i].parent);
                    threads.swap_remove(i);
                }
                None => i += 1,
            }
        }
    }

    /// A number for the first `depth` frames of a stack: equal where these are equal.
    pub fn cut(&mut self, stack: u32, depth: usize) -> u64 {
        if depth == ALL {
            return 1 << 32 | u64::from(stack);
        }
        self.cut_at(stack, depth).into()
    }

    fn cut_at(&mut self, stack: u32, depth: usize) -> u32 {
        if depth == 0 {
            return u32::MAX;
        }
        if stack == BOTTOM {
            return 0;
        }
        if let Some(&known) = self.cuts.get(&(stack, depth as u32)) {
            return known;
        }
        let (mut list, mut i) = (Vec::new(), 0);
        while let Some(member) = self.member(stack, i) {
            if member == BOTTOM {
                list.push((END, 0));
            } else {
                let (mut frame, below) = self.frame(member);
                frame.names = 0;
                list.push((frame, self.cut_at(below, depth - 1)));
            }
            i += 1;
        }
        list.sort_unstable();
        let next = self.cut_ids.len() as u32 + 1;
        let id = *self.cut_ids.entry(list.into()).or_insert(next);
        self.cuts.insert((stack, depth as u32), id);
        id
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> usize {
        let groups: usize = self.groups.iter().map(|g| 3 * 4 * g.len() + 64).sum();
        self.nodes.len() * 3 * std::mem::size_of::<(Frame, u32)>() + groups + self.forgettable_bytes()
    }

    fn forgettable_bytes(&self) -> usize {
        self.joins.len() * 40 + self.cuts.len() * 16 + self.cut_ids.len() * 96
    }

    /// Forgets what can be found again. Numbers of cuts are then given anew.
    pub fn forget(&mut self) {
        self.joins.clear();
        self.cuts.clear();
        self.cut_ids.clear();
    }
}
