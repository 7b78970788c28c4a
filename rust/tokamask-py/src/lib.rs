//! The binding layer: extract, detach, call, wrap. No algorithm lives here.

// Doc comments here become Python docstrings, which are not Markdown.
#![allow(clippy::doc_markdown)]

mod appender;
#[allow(dead_code)] // the first array arguments come with the tokenizer
mod arrays;
mod build_info;
mod draft;
mod drop_in;
mod errors;
mod grammar;
mod kernels;
mod lists;
mod matcher;
mod tokenizer;
mod train;
mod vocabulary;

use pyo3::prelude::*;

/// The compiled half of tokamask. Import the public names from `tokamask` instead.
#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::appender::Appender;
    #[pymodule_export]
    use crate::build_info::build_info;
    #[pymodule_export]
    use crate::draft::{count_continuations, DraftSession, Drafter};
    #[pymodule_export]
    use crate::drop_in::{
        cut_scripts, encode_bytes, encode_lists, encode_piece, encode_unstable, encode_utf8,
        may_have_special, read_ranks, Pattern,
    };
    #[pymodule_export]
    use crate::grammar::{
        choice, read_ebnf, read_json_schema, read_lark, read_regex, read_structural_tag, GrammarSource,
    };
    #[pymodule_export]
    use crate::kernels::{
        append_bounds, append_chunks, append_rows, append_sums, apply_bitmask, attention_column_sums,
        block_sparse_prefill, decode, ems_merge, entropy_scores, fasa_calibrate, fasa_scores, greedy_select,
        hisa_select, hybrid_attention, indexer_scores, key_scores, kvmerger_merge, lagkv_scores, lightning,
        merge_rows, merge_states, multiply_rows, pagerank_scores, quest_bounds, quest_scores, sample,
        selected_prefill, token_select, token_sparse_select, tome_edges, top_k, tree_decode, unmask,
        verify_greedy, verify_sampled, window_scores,
    };
    #[pymodule_export]
    use crate::matcher::{compile_grammar, fill_bitmasks, CompiledGrammar, Matcher};
    #[pymodule_export]
    use crate::tokenizer::{StreamDecoder, Tokenizer};
    #[pymodule_export]
    use crate::train::{
        check_counts, merge_counts, replay_merges, train_boundless, train_bpe, train_extend, train_superbpe,
        train_unigram, train_wordpiece, unreachable_tokens, PretokenCounter,
    };
    #[pymodule_export]
    use crate::vocabulary::Vocabulary;
}
