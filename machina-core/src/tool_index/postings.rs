//! Which documents have which words, and which of them fit some words best: BM25
//! (Robertson and Zaragoza 2009), where what can no longer be among the best is not
//! looked at (the MaxScore rule of Turtle and Flood 1995). So the words that every
//! document has cost next to nothing.
//!
//! Pure. Knows documents by number; a number is given once, until all are given anew
//! because too many are gone.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use smallvec::SmallVec;

use super::words::words;

/// The average number of words in a tool's text, measured on the definitions of
/// about a thousand published tools. BM25 normalises by it.
const WORDS_AVERAGE: f32 = 60.0;

/// How little a further occurrence of a word counts, and how much the length of a
/// text: the usual values of BM25.
const SATURATION: f32 = 1.2;
const LENGTH_SHARE: f32 = 0.75;

/// Sums of the same numbers in another order differ by less than this share.
const ROUNDING: f32 = 1e-4;

/// A document.
pub(super) type Number = u32;

/// A word, known by its hash: 64 bits tell as many words apart as there are.
type Key = u64;

/// The words of all documents.
#[derive(Debug, Default)]
pub(super) struct Postings {
    words: HashMap<Key, Word, FixedState>,
    /// How many numbers were given, and how many documents there are.
    given: Number,
    documents: usize,
}

#[derive(Debug, Default)]
struct Word {
    /// Documents that have it, in order, each with what it counts there; some may be gone.
    entries: SmallVec<[(Number, f32); 2]>,
    /// How many of them are there.
    documents: u32,
    /// The most that it counts anywhere.
    most: f32,
}

/// A word of a question.
struct Asked<'a> {
    word: &'a Word,
    /// How much it counts at all: the rarer, the more.
    factor: f32,
}

impl Asked<'_> {
    /// The most that it adds to the score of a document.
    fn most(&self) -> f32 {
        self.factor * self.word.most
    }
}

impl Postings {
    /// Adds a document with these texts, and returns its number.
    pub(super) fn add(&mut self, texts: &[&str]) -> Number {
        let number = self.given;
        self.given += 1;
        self.documents += 1;
        let (counts, length) = counted(texts);
        #[allow(clippy::cast_precision_loss, reason = "a text has at most 64 KiB")]
        let share = SATURATION * (1.0 - LENGTH_SHARE + LENGTH_SHARE * (length as f32 / WORDS_AVERAGE));
        for (key, count) in counts {
            let weight = count * (SATURATION + 1.0) / (count + share);
            let word = self.words.entry(key).or_default();
            word.entries.push((number, weight));
            word.documents += 1;
            word.most = word.most.max(weight);
        }
        number
    }

    /// A document with these texts is gone. Its number stays until [`Self::renumber`].
    pub(super) fn remove(&mut self, texts: &[&str]) {
        self.documents -= 1;
        for (key, _) in counted(texts).0 {
            let Some(word) = self.words.get_mut(&key) else { continue };
            word.documents -= 1;
            if word.documents == 0 {
                self.words.remove(&key);
            }
        }
    }

    /// Whether so many documents are gone that all are to be numbered anew.
    pub(super) fn is_sparse(&self) -> bool {
        self.given as usize > 1000 + self.documents + self.documents / 4
    }

    /// Gives the documents for which `stays` says so the numbers from 0 on, in their order.
    pub(super) fn renumber(&mut self, stays: impl Fn(Number) -> bool) {
        let mut numbers = Vec::with_capacity(self.given as usize);
        let mut next: Number = 0;
        for number in 0..self.given {
            let stays = stays(number);
            numbers.push(stays.then_some(next));
            next += Number::from(stays);
        }
        for word in self.words.values_mut() {
            word.entries.retain(|(number, _)| {
                let known = numbers[*number as usize];
                *number = known.unwrap_or_default();
                known.is_some()
            });
            word.entries.shrink_to_fit();
            word.most = word.entries.iter().map(|(_, weight)| *weight).fold(0.0, f32::max);
        }
        self.given = next;
    }

    /// The documents that fit `text` best among those that `admits` accepts, each with
    /// its score, in no order: `limit` of them, and whichever have the score of the
    /// last of these.
    pub(super) fn search(
        &self,
        text: &str,
        limit: usize,
        mut admits: impl FnMut(Number) -> bool,
    ) -> Vec<(Number, f32)> {
        let asked = self.asked(text);
        let mut found: Vec<(Number, f32)> = Vec::new();
        for (place, one) in asked.iter().enumerate() {
            let left: f32 = asked[place..].iter().map(Asked::most).sum();
            let least = least_of_best(&found, limit);
            // What has none of the words before could come to no more than what is left.
            if left < least * (1.0 - ROUNDING) {
                found.retain(|(_, score)| *score + left >= least * (1.0 - ROUNDING));
                raise(&mut found, one);
            } else {
                found = merged(&found, one, &mut admits);
            }
        }
        let least = least_of_best(&found, limit);
        found.retain(|(_, score)| *score >= least);
        found
    }

    /// The words of a question that any document has, those first that count most.
    fn asked(&self, text: &str) -> Vec<Asked<'_>> {
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let rarity = |word: &Word| {
            let (all, having) = (self.documents as f32, word.documents as f32);
            (1.0 + (all - having + 0.5) / (having + 0.5)).ln()
        };
        let (counts, _) = counted(&[text]);
        let known = counts.into_iter().filter_map(|(key, count)| {
            let word = self.words.get(&key)?;
            Some((key, Asked { word, factor: count * rarity(word) }))
        });
        let mut asked: Vec<(Key, Asked<'_>)> = known.collect();
        asked.sort_by(|(a, one), (b, other)| other.most().total_cmp(&one.most()).then(a.cmp(b)));
        asked.into_iter().map(|(_, asked)| asked).collect()
    }
}

/// How often each word is in the texts, and how many words these are together.
fn counted(texts: &[&str]) -> (HashMap<Key, f32, FixedState>, usize) {
    let hasher = FixedState::with_seed(0);
    let (mut counts, mut length) = (HashMap::default(), 0);
    for text in texts {
        words(text, &mut |word| {
            *counts.entry(hasher.hash_one(word)).or_insert(0.0) += 1.0;
            length += 1;
        });
    }
    (counts, length)
}

/// The score of the last of the best `limit`; 0 while there are fewer.
fn least_of_best(found: &[(Number, f32)], limit: usize) -> f32 {
    if found.len() < limit || limit == 0 {
        return 0.0;
    }
    let mut scores: Vec<f32> = found.iter().map(|(_, score)| *score).collect();
    let (_, least, _) = scores.select_nth_unstable_by(limit - 1, |a, b| b.total_cmp(a));
    *least
}

/// Adds what the word counts to the documents that were found.
fn raise(found: &mut [(Number, f32)], asked: &Asked<'_>) {
    let mut entries = &asked.word.entries[..];
    for (number, score) in found {
        entries = &entries[entries.partition_point(|(other, _)| other < number)..];
        if let Some((_, weight)) = entries.first().filter(|(other, _)| other == number) {
            *score += asked.factor * weight;
        }
    }
}

/// What was found, and the documents that have the word besides.
fn merged(found: &[(Number, f32)], asked: &Asked<'_>, admits: &mut impl FnMut(Number) -> bool) -> Vec<(Number, f32)> {
    let mut merged = Vec::with_capacity(found.len() + asked.word.entries.len());
    let mut known = found.iter().copied().peekable();
    for (number, weight) in &asked.word.entries {
        while let Some(before) = known.next_if(|(other, _)| other < number) {
            merged.push(before);
        }
        match known.next_if(|(other, _)| other == number) {
            Some((_, score)) => merged.push((*number, score + asked.factor * weight)),
            None if admits(*number) => merged.push((*number, asked.factor * weight)),
            None => {}
        }
    }
    merged.extend(known);
    merged
}

#[cfg(test)]
#[path = "postings_tests.rs"]
mod tests;
