//! Laws of the readers: a damaged file is refused by name or makes a tokenizer that works. Files of ours are also
//! forged, with a checksum that fits.

use proptest::prelude::*;
use proptest::sample::Index;

use super::Tokenizer;
use crate::bpe::Merges;
use crate::formats::{compiled, tekken, tiktoken, tokenizer_json_write, Definition, Settings};
use crate::text::added::Allowed;
use crate::text::pretokenizer::GPT2;

const TEXTS: [&str; 6] = [
    "the cat  sat\n on 12345 mats, did it?\n\n  ",
    "é日\u{301} \0<s></s>",
    "\u{1f469}\u{200d}\u{1f680}\u{2581}<0x41>",
    "thethethethethethethethethethethethethethethethethethethethethethethethethethethethe",
    "                                                                                  x",
    "abababababababababababababababab abababababababab",
];

fn definition(special: u32) -> Definition {
    let bytes = (0..=255u8).map(|byte| Some(vec![byte]));
    let words = ["th", "the", " the", "at", "cat", "  ", "    ", "ab", "abab", "ab abab", "éa"];
    let words = words.iter().map(|word| Some(word.as_bytes().to_vec()));
    let holes = (0..special).map(|_| None);
    let names = ["<unk>", "<s>", "</s>"].iter().zip(0..special);
    let names = names.map(|(name, id)| ((*name).to_owned(), id)).collect();
    let settings = Settings { eos_ids: vec![0], ..Settings::tiktoken(GPT2, names) };
    Definition { tokens: holes.chain(bytes).chain(words).collect(), merges: Merges::Ranks, settings }
}

/// A field of a protocol buffer.
fn field(number: u8, data: &[u8]) -> Vec<u8> {
    let length = data.len();
    let spelled =
        if length < 128 { vec![length as u8] } else { vec![length as u8 | 128, (length >> 7) as u8] };
    [&[number << 3 | 2][..], &spelled, data].concat()
}

fn sentencepiece() -> Vec<u8> {
    let words = ["\u{2581}", "t", "h", "e", "\u{2581}t", "he", "\u{2581}the", "a", "b", "ab"];
    let bytes: Vec<String> = (0..=255u8).map(|byte| format!("<0x{byte:02X}>")).collect();
    let kinds = [("<unk>", 2u8), ("<s>", 3), ("</s>", 3)];
    let kinds =
        kinds.into_iter().chain(bytes.iter().map(|name| (&**name, 6))).chain(words.map(|word| (word, 1)));
    let pieces = kinds.zip(0u16..).map(|((text, kind), nth)| {
        let score = (-f32::from(nth)).to_le_bytes();
        field(1, &[&field(1, text.as_bytes())[..], &[0x15], &score, &[0x18, kind]].concat())
    });
    let trainer = field(2, &[0x18, 2, 0x98, 0x02, 0x01]);
    pieces
        .collect::<Vec<_>>()
        .concat()
        .into_iter()
        .chain(trainer)
        .chain(field(3, &[0x18, 1, 0x20, 0]))
        .collect()
}

fn gguf() -> Vec<u8> {
    let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let words = ["<unk>", "<s>", "</s>", "\u{2581}", "t", "h", "e", "\u{2581}t", "he", "\u{2581}the"];
    let array = |kind: u32, items: Vec<Vec<u8>>| {
        let head = [9u32.to_le_bytes(), kind.to_le_bytes()].concat();
        [&head[..], &(items.len() as u64).to_le_bytes(), &items.concat()].concat()
    };
    let scores = (0u8..).take(words.len()).map(|nth| (-f32::from(nth)).to_le_bytes().to_vec()).collect();
    let kinds = [2i32, 3, 3, 1, 1, 1, 1, 1, 1, 1].map(|kind| kind.to_le_bytes().to_vec()).to_vec();
    let members = [
        ("model", [&8u32.to_le_bytes()[..], &string("llama")].concat()),
        ("tokens", array(8, words.iter().map(|word| string(word)).collect())),
        ("scores", array(6, scores)),
        ("token_type", array(5, kinds)),
    ];
    let mut file = [&b"GGUF"[..], &3u32.to_le_bytes(), &0u64.to_le_bytes(), &4u64.to_le_bytes()].concat();
    for (name, value) in members {
        file.extend([string(&format!("tokenizer.ggml.{name}")), value].concat());
    }
    file
}

/// A file of every format, and whether it is one of ours.
fn files() -> &'static [(Vec<u8>, bool)] {
    static FILES: std::sync::OnceLock<Vec<(Vec<u8>, bool)>> = std::sync::OnceLock::new();
    FILES.get_or_init(|| {
        let plain = definition(0);
        let tokenizer = Tokenizer::new(plain.clone()).expect("sound");
        let spelled = Tokenizer::from_bytes(&sentencepiece()).expect("sound");
        vec![
            (tiktoken::write(&plain).expect("ranks"), false),
            (tekken::write(&definition(3)).expect("fits"), false),
            (tokenizer_json_write::write(&plain).expect("fits"), false),
            (sentencepiece(), false),
            (gguf(), false),
            (tokenizer.to_compiled().expect("fits"), true),
            (spelled.to_compiled().expect("fits"), true),
        ]
    })
}

/// Bytes cut off, flipped, doubled, left out, or overwritten by lengths; in the first `size` of a file.
fn damage(file: &mut Vec<u8>, size: usize, edits: &[(Index, u8, u8)]) {
    for (at, kind, byte) in edits {
        let at = at.index(size.min(file.len()).max(1)).min(file.len());
        let end = file.len().min(at + usize::from(byte % 20));
        match kind {
            0 => file.truncate(at),
            1 => file[at..end].iter_mut().take(1).for_each(|old| *old ^= 1 << (byte % 8)),
            2 => file[at..end].iter_mut().take(1).for_each(|old| *old = *byte),
            3 => {
                let copy = file[at..end].to_vec();
                file.splice(at..at, copy);
            }
            4 => drop(file.drain(at..end)),
            5 => file[at..end].iter_mut().take(8).for_each(|old| *old = 0xFF),
            _ => file[at..end].iter_mut().take(4).for_each(|old| *old = byte % 3),
        }
    }
}

fn works(file: &[u8]) {
    let tokenizer = match tiktoken::read(file) {
        Ok(tokens) => Tokenizer::from_ranks(tokens, GPT2, Vec::new()),
        Err(_) => Tokenizer::from_bytes(file),
    };
    let Ok(tokenizer) = tokenizer else { return };
    for text in TEXTS {
        let Ok(ids) = tokenizer.encode(text, true, &Allowed::All) else { continue };
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocabulary().len()));
        let _decoded = (tokenizer.decode(&ids), tokenizer.decode_bytes(&ids));
        let _spans = tokenizer.encode_spans(text, true, &Allowed::All);
    }
}

#[test]
fn whole_files_are_read() {
    for (file, _) in files() {
        assert!(tiktoken::read(file).is_ok() || Tokenizer::from_bytes(file).is_ok());
        works(file);
    }
}

#[test]
fn each_word_of_a_compiled_file_is_forged() {
    for (file, _) in files().iter().filter(|file| file.1) {
        for at in (0..12_000.min(file.len() - 8)).step_by(8) {
            let mut forged = file.clone();
            forged[at..at + 8].fill(0xFF);
            compiled::seal(&mut forged);
            works(&forged);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn damaged_files(
        which in any::<Index>(),
        edits in prop::collection::vec((any::<Index>(), 0u8..7, any::<u8>()), 1..6),
    ) {
        let (mut file, _) = which.get(files()).clone();
        let size = file.len();
        damage(&mut file, size, &edits);
        works(&file);
    }

    #[test]
    fn forged_files(
        which in any::<Index>(),
        all in any::<bool>(),
        edits in prop::collection::vec((any::<Index>(), 0u8..7, any::<u8>()), 1..6),
    ) {
        let ours: Vec<_> = files().iter().filter(|file| file.1).collect();
        let mut file = which.get(&ours).0.clone();
        // The notes of barriers, at the end, would draw most of the edits.
        let size = if all { file.len() } else { 12_000.min(file.len()) };
        damage(&mut file, size, &edits);
        compiled::seal(&mut file);
        works(&file);
    }
}
