//! Characters as letters: a class, and what the text around decides about it.
//!
//! Three things that no short window sees are made visible by marking characters before the windows
//! are looked up:
//!
//! * a class that is counted (`\p{N}{1,3}`): each character's place in its run, modulo the count;
//! * white space: whether its run ends at a line end (`\s*[\r\n]+` reads over all of it);
//! * a class after which the automaton may be in states that have nothing to do with one another
//!   (punctuation alone, which may be the head of a word, or in a run): what the character before it
//!   says.
//!
//! Marks only restrict which letters may follow one another, so any choice of them is exact.

use super::classes::Classes;
use super::dfa::{Automaton, DEAD, START};

/// What is known about a character beyond its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing.
    Plain,
    /// One of two kinds of states after it, by the character before.
    Kind(usize),
    /// The place in a run of a counted class.
    Place(usize),
    /// White space whose run ends at a line end.
    BeforeLine,
}

/// A class in one of its roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The class.
    pub class: usize,
    /// A character of several bytes.
    pub wide: bool,
    /// Its mark.
    pub mark: Mark,
}

/// A class whose characters are told apart by the one before.
#[derive(Clone, Debug)]
pub struct Refined {
    /// The class.
    pub class: usize,
    /// By class of the character before: [`Mark::Kind`] or [`Mark::Plain`].
    pub after: Vec<Mark>,
    /// At the beginning of a piece.
    pub first: Mark,
    /// After another of its class it has the mark of that.
    pub inherits: bool,
}

/// What is marked in the text of a rule.
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// A class and how many of it a piece takes.
    pub counted: Option<(usize, usize)>,
    /// Classes of white space that are not line ends; classes of line ends.
    pub lines: Option<(Vec<bool>, Vec<bool>)>,
    /// Classes told apart by the character before.
    pub refined: Vec<Refined>,
    /// A class that spoils the places after it, where it is [`Mark::Plain`].
    pub spoiler: Option<usize>,
}

impl Features {
    /// What a rule counts, and its line ends.
    pub fn of(automaton: &Automaton, classes: &Classes) -> Self {
        let of = |byte: u8| usize::from(classes.ascii[usize::from(byte)]);
        let counted = (0..classes.count).filter(|&class| (0..128).any(|byte| of(byte) == class));
        let counted = counted.filter_map(|class| Some((class, count(automaton, class)?)));
        let (mut white, mut ends) = (vec![false; classes.count], vec![false; classes.count]);
        for byte in *b"\r\n" {
            ends[of(byte)] = true;
        }
        for byte in *b" \t\x0b\x0c" {
            white[of(byte)] = true;
        }
        let beyond = classes.beyond_ascii();
        let apart = (0..classes.count).all(|class| !(ends[class] && (white[class] || beyond[class])));
        Self {
            counted: counted.max_by_key(|&(_, most)| most),
            lines: apart.then_some((white, ends)),
            ..Self::default()
        }
    }

    /// All letters.
    pub fn letters(&self, classes: &Classes) -> Vec<Letter> {
        let beyond = classes.beyond_ascii();
        let mut letters = Vec::new();
        for (class, &beyond) in beyond.iter().enumerate() {
            let ascii = classes.ascii.iter().any(|&other| usize::from(other) == class);
            let marks: Vec<Mark> = if self.refined.iter().any(|refined| refined.class == class) {
                vec![Mark::Plain, Mark::Kind(0), Mark::Kind(1)]
            } else {
                vec![Mark::Plain]
            };
            if ascii {
                let add = |mark| letters.push(Letter { class, wide: false, mark });
                if let Some((_, most)) = self.counted.filter(|counted| counted.0 == class) {
                    (0..most).map(Mark::Place).for_each(add);
                } else if self.is_white(class) {
                    [Mark::Plain, Mark::BeforeLine].into_iter().for_each(add);
                } else {
                    marks.iter().copied().for_each(add);
                }
            }
            if beyond {
                letters.extend(marks.iter().map(|&mark| Letter { class, wide: true, mark }));
            }
        }
        letters
    }

    fn is_white(&self, class: usize) -> bool {
        self.lines.as_ref().is_some_and(|lines| lines.0[class])
    }

    fn is_line_end(&self, class: usize) -> bool {
        self.lines.as_ref().is_some_and(|lines| lines.1[class])
    }

    /// The mark of a character of a class after another.
    fn mark_after(&self, before: Letter, class: usize) -> Mark {
        match self.refined.iter().find(|refined| refined.class == class) {
            Some(refined) if refined.inherits && before.class == class => before.mark,
            Some(refined) => refined.after[before.class],
            None => Mark::Plain,
        }
    }

    /// True if the scanner, which marks the text, can meet `next` after `before` (`None`: the end).
    /// What it hands over to the automaton unseen (a counted character of several bytes before one of
    /// one byte; white space of one byte before white space of several) is not met.
    pub fn legal(&self, before: Letter, next: Option<Letter>) -> bool {
        let counted = |letter: Letter| self.counted.is_some_and(|counted| counted.0 == letter.class);
        let white = |letter: Letter| self.is_white(letter.class);
        if white(before) && !before.wide {
            let line = match next {
                None => false,
                Some(next) if white(next) && next.wide => return false,
                Some(next) if white(next) => next.mark == Mark::BeforeLine,
                Some(next) => self.is_line_end(next.class),
            };
            if line != (before.mark == Mark::BeforeLine) {
                return false;
            }
        }
        let Some(next) = next else { return true };
        match next.mark {
            Mark::Place(place) => match before.mark {
                Mark::Place(last) => self.counted.is_some_and(|(_, most)| (last + 1) % most == place),
                _ => place == 0 && !counted(before),
            },
            Mark::BeforeLine => true,
            Mark::Plain if white(next) || counted(next) => true,
            mark => mark == self.mark_after(before, next.class),
        }
    }

    /// True if a piece may begin with the letter where a chunk begins.
    pub fn may_begin(&self, letter: Letter) -> bool {
        match letter.mark {
            Mark::Place(place) => place == 0,
            Mark::BeforeLine => true,
            mark => {
                let refined = self.refined.iter().find(|refined| refined.class == letter.class);
                mark == refined.map_or(Mark::Plain, |refined| refined.first)
            }
        }
    }

    /// True if the letter spoils what follows it.
    pub fn spoils(&self, letter: Letter) -> bool {
        self.spoiler == Some(letter.class) && letter.mark == Mark::Plain
    }
}

/// How many characters of a class a piece that begins with them takes, if that is few.
fn count(automaton: &Automaton, class: usize) -> Option<usize> {
    let mut state = automaton.entry(START, class);
    for most in 1..=8 {
        let entry = automaton.entry(state & !super::dfa::MATCHED, class);
        if entry & !super::dfa::MATCHED == DEAD {
            return (most > 1).then_some(most);
        }
        state = entry;
    }
    None
}
