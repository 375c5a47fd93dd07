//! What is left out makes no difference to what is found.

use proptest::prelude::*;

use super::*;

/// Few words, some of them in nearly every text.
fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof![4 => 0..3_u32, 2 => 3..8_u32, 1 => 8..40_u32], 0..12)
        .prop_map(|words| words.iter().map(|word| format!("w{word}")).collect::<Vec<_>>().join(" "))
}

/// The scores of BM25 by its definition.
fn scores(documents: &[Option<String>], question: &str) -> Vec<(Number, f32)> {
    let there = documents.iter().flatten().count();
    let count = |text: &str, word: &str| text.split(' ').filter(|other| *other == word).count();
    let score = |text: &str| -> f32 {
        let asked = question.split(' ').filter(|word| !word.is_empty());
        let each = asked.map(|word| {
            let having = documents.iter().flatten().filter(|text| count(text, word) > 0).count() as f32;
            let (times, length) = (count(text, word) as f32, text.split(' ').filter(|word| !word.is_empty()).count());
            let rarity = (1.0 + (there as f32 - having + 0.5) / (having + 0.5)).ln();
            rarity * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * length as f32 / WORDS_AVERAGE))
        });
        each.sum()
    };
    let all = documents.iter().zip(0..).filter_map(|(text, number)| Some((number, score(text.as_deref()?))));
    all.filter(|(_, score)| *score > 0.0).collect()
}

proptest! {
    #[test]
    fn the_best_are_found_as_if_every_document_were_looked_at(
        texts in prop::collection::vec((text(), any::<bool>()), 1..60),
        question in text(),
        limit in 1..8_usize,
    ) {
        let mut postings = Postings::default();
        let mut documents: Vec<Option<String>> = texts.iter().map(|(text, _)| Some(text.clone())).collect();
        for (number, (text, _)) in texts.iter().enumerate() {
            prop_assert_eq!(postings.add(&[text]) as usize, number);
        }
        for (document, (text, stays)) in documents.iter_mut().zip(&texts) {
            if !stays {
                postings.remove(&[text]);
                *document = None;
            }
        }
        let check = |postings: &Postings, documents: &[Option<String>]| {
            let mut expected = scores(documents, &question);
            expected.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let mut found = postings.search(&question, limit, |number| documents[number as usize].is_some());
            found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            prop_assert!(found.len() >= limit.min(expected.len()), "{found:?} {expected:?}");
            for ((_, score), (_, best)) in found.iter().zip(expected.iter().take(limit)) {
                prop_assert!((score - best).abs() <= best * 1e-3, "{found:?} {expected:?}");
            }
            for (number, score) in &found {
                let (_, right) = expected.iter().find(|(other, _)| other == number).unwrap();
                prop_assert!((score - right).abs() <= right * 1e-3, "{found:?} {expected:?}");
            }
            Ok(())
        };
        check(&postings, &documents)?;
        postings.renumber(|number| documents[number as usize].is_some());
        documents.retain(Option::is_some);
        check(&postings, &documents)?;
    }
}

#[test]
fn numbers_are_given_anew_when_many_documents_are_gone() {
    let mut postings = Postings::default();
    for _ in 0..2000 {
        let number = postings.add(&["same words"]);
        assert!(!postings.is_sparse() || number > 1000);
        postings.remove(&["same words"]);
        if postings.is_sparse() {
            postings.renumber(|_| false);
        }
    }
    assert!(postings.given <= 1001 && postings.words.is_empty());
}
