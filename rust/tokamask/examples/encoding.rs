//! Speed of encoding without Python: `cargo run --release --example encoding -- TOKENIZER TEXTS.jsonl... [--slices N] [--bytes N] [--loop cold|new|repeated]`.
//!
//! A file of texts has a JSON string a line. Half a megabyte (`--bytes`) through a new object is *cold*; then a megabyte more,
//! and slices of half a megabyte: *new*, and again: *repeated*. Medians, in MB/s of one thread.
//! `--loop` does one of
//! the three again and again, for a profiler; `new` has another object for every slice.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use tokamask::formats::map::Map;
use tokamask::text::added::Allowed;
use tokamask::tokenizer::Tokenizer;

const WARM_UP: usize = 3;
const LONGEST: usize = 100_000;

/// Slices of texts, the first `slices + WARM_UP` of the file.
fn read(path: &str, slices: usize, size: usize) -> Result<Vec<Vec<String>>, Box<dyn Error>> {
    let (mut all, mut slice, mut bytes) = (Vec::new(), Vec::new(), 0);
    for line in std::fs::read_to_string(path)?.lines() {
        let text: String = serde_json::from_str(line)?;
        let text: String = text.chars().take(LONGEST).collect();
        bytes += text.len();
        slice.push(text);
        if bytes >= size {
            bytes = 0;
            all.push(std::mem::take(&mut slice));
            if all.len() == slices + WARM_UP {
                return Ok(all);
            }
        }
    }
    Err(format!("{path} is too short for {slices} slices").into())
}

/// MB/s of encoding a slice, whose ids are kept until the end as a caller would.
fn speed(tokenizer: &Tokenizer, texts: &[String]) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    let ids: Result<Vec<_>, _> =
        texts.iter().map(|text| tokenizer.encode(text, false, &Allowed::None)).collect();
    let seconds = start.elapsed().as_secs_f64();
    black_box(ids?);
    Ok(texts.iter().map(String::len).sum::<usize>() as f64 / 1e6 / seconds)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut files, mut slices, mut only) = (Vec::new(), 5, None);
    let mut size = 500_000;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--slices" => slices = arguments.next().ok_or("--slices: how many?")?.parse()?,
            "--bytes" => size = arguments.next().ok_or("--bytes: how many?")?.parse()?,
            "--loop" => only = arguments.next(),
            _ => files.push(argument),
        }
    }
    let (tokenizer, texts) = files.split_first().ok_or("a tokenizer file, then files of texts")?;
    let file = std::fs::read(tokenizer)?;
    let load = || Tokenizer::from_map(Map::from(file.clone()));
    for path in texts {
        let all = read(path, slices, size)?;
        let (before, new) = all.split_at(WARM_UP);
        let warm = || -> Result<Tokenizer, Box<dyn Error>> {
            let tokenizer = load()?;
            for slice in before {
                speed(&tokenizer, slice)?;
            }
            Ok(tokenizer)
        };
        if let Some(state) = &only {
            let repeated = warm()?;
            for nth in 0..slices * 40 {
                let slice = &new[nth % slices];
                match state.as_str() {
                    "cold" => speed(&load()?, slice)?,
                    "new" => speed(&warm()?, slice)?,
                    _ => speed(&repeated, slice)?,
                };
            }
            continue;
        }
        let (mut cold, mut first, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..3 {
            cold.push(speed(&load()?, &before[0])?);
            let tokenizer = warm()?;
            for slice in new {
                first.push(speed(&tokenizer, slice)?);
                again.push(speed(&tokenizer, slice)?);
            }
        }
        println!("{path}: cold {:.0} new {:.0} repeated {:.0}", median(cold), median(first), median(again));
    }
    Ok(())
}
