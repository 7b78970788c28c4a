//! SentencePiece models: BPE with byte fallback, and Unigram. Ids are those of SentencePiece itself.

use rustc_hash::FxHashMap;

use super::protobuf::{Field, Message};
use super::{Definition, Settings};
use crate::bpe::{Merges, MAX_SYMBOLS};
use crate::error::{Error, UnsupportedComponentError, VocabularyError};
use crate::models::{CharactersKind, Kind, UnigramKind};
use crate::text::added::AddedToken;
use crate::text::base64;
use crate::text::charsmap::SentencePiece;
use crate::text::decoder::{Decoder, Leading};
use crate::text::normalizer::Normalizer;

/// What stands for a space.
const MARK: char = '\u{2581}';
/// What the unknown piece becomes, unless the model says otherwise.
pub(super) const SURFACE: &str = " \u{2047} ";

/// Kinds of pieces.
pub(super) const NORMAL: i32 = 1;
pub(super) const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const UNUSED: i32 = 5;
pub(super) const BYTE: i32 = 6;

/// A token of the model.
pub(super) struct Piece {
    pub text: String,
    pub score: f32,
    pub kind: i32,
}

/// The rest of the model.
pub(super) struct Model {
    pub pieces: Vec<Piece>,
    pub unigram: bool,
    pub byte_fallback: bool,
    pub eos: Option<u32>,
    pub normalizer: SentencePiece,
    /// What the unknown piece becomes in a text.
    pub surface: String,
}

/// True if the data begins like a model: a piece with a text.
pub fn looks_like(data: &[u8]) -> bool {
    let first = Message::new(data).next();
    let Some(Ok((1, Field::Bytes(piece)))) = first else { return false };
    matches!(Message::new(piece).next(), Some(Ok((1, Field::Bytes(text)))) if std::str::from_utf8(text).is_ok())
}

/// Reads a model.
pub fn read(data: &[u8]) -> Result<Definition, Error> {
    let mut model = Model {
        pieces: Vec::new(),
        unigram: true,
        byte_fallback: false,
        eos: None,
        normalizer: SentencePiece {
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
            ..SentencePiece::default()
        },
        surface: SURFACE.to_owned(),
    };
    let mut eos = Some(2);
    for field in Message::new(data) {
        match field? {
            (1, Field::Bytes(piece)) => {
                let nth = model.pieces.len();
                model
                    .pieces
                    .push(read_piece(piece).map_err(|error| error.at_path(format!("pieces[{nth}]")))?);
            }
            (2, Field::Bytes(spec)) => {
                read_trainer(spec, &mut model, &mut eos).map_err(|error| match error {
                    Error::Vocabulary(error) => error.at_path("trainer_spec").into(),
                    other => other,
                })?;
            }
            (3, Field::Bytes(spec)) => {
                read_normalizer(spec, &mut model.normalizer)
                    .map_err(|error| error.at_path("normalizer_spec"))?;
            }
            _ => {}
        }
    }
    model.eos = eos.filter(|&id| model.pieces.get(id as usize).is_some_and(|piece| piece.kind == CONTROL));
    define(model)
}

fn read_piece(data: &[u8]) -> Result<Piece, VocabularyError> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: NORMAL };
    for field in Message::new(data) {
        match field? {
            (1, field) => piece.text = text(field)?,
            (2, field) => {
                piece.score = field.float().ok_or_else(|| VocabularyError::new("a score is no number"))?;
            }
            (3, field) => {
                piece.kind = field
                    .int()
                    .filter(|kind| (NORMAL..=BYTE).contains(kind))
                    .ok_or_else(|| VocabularyError::new("a piece of unknown kind").at_token(&piece.text))?;
            }
            _ => {}
        }
    }
    if piece.text.is_empty() {
        return Err(VocabularyError::new("a piece without a text"));
    }
    Ok(piece)
}

fn text(field: Field) -> Result<String, VocabularyError> {
    let bytes = field.bytes().ok_or_else(|| VocabularyError::new("expected a text"))?;
    String::from_utf8(bytes.to_vec()).map_err(|_| VocabularyError::new("a text is not UTF-8"))
}

fn read_trainer(data: &[u8], model: &mut Model, eos: &mut Option<u32>) -> Result<(), Error> {
    for field in Message::new(data) {
        match field? {
            (3, field) => {
                model.unigram = match field.int() {
                    Some(1) => true,
                    Some(2) => false,
                    kind => {
                        let name = match kind {
                            Some(3) => "model type WORD".to_owned(),
                            Some(4) => "model type CHAR".to_owned(),
                            _ => format!("model type {field:?}"),
                        };
                        let path = Some("trainer_spec.model_type".to_owned());
                        return Err(UnsupportedComponentError { component: name, path }.into());
                    }
                }
            }
            (24, field) => model.normalizer.space_after = field.is_true(),
            (35, field) => model.byte_fallback = field.is_true(),
            (44, field) => model.surface = text(field)?,
            (42, field) => *eos = field.int().and_then(|id| u32::try_from(id).ok()),
            _ => {}
        }
    }
    Ok(())
}

fn read_normalizer(data: &[u8], normalizer: &mut SentencePiece) -> Result<(), VocabularyError> {
    for field in Message::new(data) {
        match field? {
            (2, Field::Bytes(map)) => normalizer.charsmap = base64::encode(map),
            (3, field) => normalizer.add_dummy_prefix = field.is_true(),
            (4, field) => normalizer.remove_extra_whitespaces = field.is_true(),
            (5, field) => normalizer.escape_whitespaces = field.is_true(),
            _ => {}
        }
    }
    Ok(())
}

/// The definition that a model comes to.
pub(super) fn define(mut model: Model) -> Result<Definition, Error> {
    if model.pieces.is_empty() || model.pieces.len() > MAX_SYMBOLS {
        let reason = format!("a SentencePiece model of {} pieces", model.pieces.len());
        return Err(VocabularyError::new(reason).into());
    }
    let mut ids: FxHashMap<&str, u32> = FxHashMap::default();
    for (id, piece) in model.pieces.iter().enumerate() {
        if ids.insert(&piece.text, id as u32).is_some() {
            return Err(VocabularyError::new("a piece is given twice").at_token(&piece.text).into());
        }
        if !piece.score.is_finite() {
            return Err(VocabularyError::new("a score is not a finite number").at_token(&piece.text).into());
        }
    }
    let of_kind = |kind: i32| model.pieces.iter().enumerate().filter(move |(_, piece)| piece.kind == kind);
    let unk = of_kind(UNKNOWN).map(|(id, _)| id as u32).next();
    let unk = unk.ok_or_else(|| VocabularyError::new("a SentencePiece model without an unknown piece"))?;
    if of_kind(UNKNOWN).count() > 1 {
        return Err(VocabularyError::new("a SentencePiece model with two unknown pieces").into());
    }
    let bytes = of_kind(BYTE).count();
    if model.byte_fallback && bytes != 256 {
        return Err(VocabularyError::new(format!("byte fallback with {bytes} byte pieces")).into());
    }
    let added = |(id, piece): (usize, &Piece)| AddedToken {
        content: piece.text.clone(),
        id: id as u32,
        special: piece.kind == CONTROL,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: piece.kind == USER_DEFINED,
    };
    let mut tokens: Vec<AddedToken> = of_kind(CONTROL).map(added).collect();
    // BPE matches user-defined pieces before it merges; Unigram only scores them.
    if !model.unigram {
        tokens.extend(of_kind(USER_DEFINED).map(added));
    }
    model.normalizer.user_defined = of_kind(USER_DEFINED).map(|(_, piece)| piece.text.clone()).collect();
    let (kind, merges) = if model.unigram {
        (Kind::Unigram(unigram(&model, unk)), Merges::List(Vec::new()))
    } else {
        let order = Order::new(&model)?;
        (Kind::Characters(characters(&model, unk, order.tied)), Merges::List(order.merges))
    };
    let settings = Settings {
        model: kind,
        added: tokens,
        eos_ids: model.eos.into_iter().collect(),
        decoder: Some(decoder(&model, unk)),
        normalizer: Some(Normalizer::SentencePiece(model.normalizer)),
        ..Settings::default()
    };
    let tokens = model.pieces.into_iter().map(|piece| match piece.kind {
        CONTROL => None,
        USER_DEFINED if !model.unigram => None,
        _ => Some(piece.text.into_bytes()),
    });
    Ok(Definition { tokens: tokens.collect(), merges, settings })
}

fn characters(model: &Model, unk: u32, tied: Vec<u32>) -> CharactersKind {
    CharactersKind {
        unk_token: Some(model.pieces[unk as usize].text.clone()),
        fuse_unk: true,
        byte_fallback: model.byte_fallback,
        tied,
        ..CharactersKind::default()
    }
}

fn unigram(model: &Model, unk: u32) -> UnigramKind {
    let normal = || model.pieces.iter().filter(|piece| piece.kind == NORMAL).map(|piece| piece.score);
    let score = |piece: &Piece| match piece.kind {
        // Longer is better, and better than any other piece. The law of SentencePiece 0.2.3; older ones took
        // the length times the best score, which is negative, and could prefer the parts.
        USER_DEFINED => f64::from((0.1 * (piece.text.len() as f64 - 1.0)) as f32),
        _ => f64::from(piece.score),
    };
    let reserved = |piece: &Piece| matches!(piece.kind, CONTROL | UNKNOWN | UNUSED | BYTE);
    UnigramKind {
        scores: model.pieces.iter().map(score).collect(),
        unk_id: Some(unk),
        byte_fallback: model.byte_fallback,
        single: true,
        least: vec![f64::from(normal().fold(f32::MAX, f32::min))],
        reserved: (0..).zip(&model.pieces).filter(|(_, piece)| reserved(piece)).map(|(id, _)| id).collect(),
    }
}

/// The pairs that merge, and the runs that form after all of them.
struct Order {
    /// Pairs that make pieces, best score first.
    merges: Vec<(u32, u32)>,
    /// Runs of marks of one score, the lowest: the leftmost pair goes first, whatever it makes.
    tied: Vec<u32>,
}

impl Order {
    fn new(model: &Model) -> Result<Self, Error> {
        let pieces = &model.pieces;
        let refuse = |component: String| {
            Error::from(UnsupportedComponentError { component, path: Some("pieces".into()) })
        };
        if let Some(piece) = pieces.iter().find(|piece| piece.kind == UNUSED) {
            return Err(refuse(format!("unused piece {:?}", piece.text)));
        }
        let mut ids: FxHashMap<&str, u32> = FxHashMap::default();
        let mut order = Vec::new();
        for (id, piece) in (0u32..).zip(pieces).filter(|(_, piece)| piece.kind == NORMAL) {
            ids.insert(&piece.text, id);
            if piece.text.chars().nth(1).is_some() {
                order.push(id);
            }
        }
        // Stable: equals stay in the order of the file.
        let score = |id: u32| pieces[id as usize].score;
        order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
        let run = |id: u32| pieces[id as usize].text.chars().all(|c| c == MARK);
        let last = order.last().map(|&id| score(id));
        let at = order.partition_point(|&id| last.is_some_and(|last| score(id) > last));
        let mut tied = Vec::new();
        if order.len() - at > 1 && order[at..].iter().all(|&id| run(id)) {
            tied = order.split_off(at);
        }
        // Any two neighbours that are a piece together may merge, so all ways to halve a piece are pairs.
        let mut merges = Vec::with_capacity(order.len() * 3);
        let mut before = None;
        for &id in &order {
            let text = &*pieces[id as usize].text;
            let first = merges.len();
            merges.extend(text.char_indices().skip(1).filter_map(|(at, _)| {
                let (left, right) = text.split_at(at);
                Some((*ids.get(left)?, *ids.get(right)?))
            }));
            if merges.len() == first {
                continue; // no merge makes it
            }
            if let Some(tie) =
                before.replace(id).filter(|&before| score(before).total_cmp(&score(id)).is_eq())
            {
                return Err(refuse(format!(
                    "pieces of one score: {:?} and {text:?}",
                    pieces[tie as usize].text
                )));
            }
        }
        let double = String::from_iter([MARK, MARK]);
        let after_runs = |&&id: &&u32| pieces[id as usize].text.contains(&double);
        if let (false, Some(&id)) = (tied.is_empty(), order.iter().find(after_runs)) {
            return Err(refuse(format!("piece {:?} beside runs of one score", pieces[id as usize].text)));
        }
        Ok(Self { merges, tied })
    }
}

fn decoder(model: &Model, unk: u32) -> Decoder {
    Decoder::SentencePiece {
        unknown: model.pieces[unk as usize].text.clone(),
        surface: model.surface.clone(),
        spaces: match &model.normalizer {
            normalizer if normalizer.remove_extra_whitespaces => Leading::EachFirst,
            normalizer if normalizer.add_dummy_prefix => Leading::First,
            _ => Leading::Kept,
        },
    }
}
