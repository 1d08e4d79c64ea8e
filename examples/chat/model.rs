//! Replaces a model and a database: the answers of a bicycle shop, word by word.

use futures_util::{Stream, StreamExt, stream};
use std::time::Duration;
use tokio::time::sleep;

/// It isn't this model, but Phoenix looks up the price of a call with the model's name.
pub(crate) const NAME: &str = "gpt-4o-mini";

/// The beginnings of words, and the facts about them.
const FACTS: &[(&[&str], &str)] = &[
    (
        &["open", "hour", "close", "sunday", "saturday"],
        "We are open Monday to Friday from 9 to 18, and on Saturday from 9 to 14.",
    ),
    (
        &["deliver", "ship", "arrive", "send", "post"],
        "A bicycle is at your door three days after you order it. Delivery is free.",
    ),
    (
        &["return", "refund", "money", "exchange", "warrant"],
        "You may return anything within 30 days, and your money is back two days later.",
    ),
    (
        &["size", "frame", "tall", "height", "fit"],
        "Choose the frame by your height: S up to 165 cm, M up to 178, L up to 190, and XL above.",
    ),
    (
        &["puncture", "flat", "tyre", "tire", "tube"],
        "A puncture is mended while you wait, for 12 euros.",
    ),
    (
        &[
            "repair", "service", "brake", "broken", "gear", "mend", "fix",
        ],
        "Bring it in the morning, and it is ready the next day. A full service costs 69 euros.",
    ),
    (
        &["electric", "battery", "charge", "motor", "range"],
        "Our electric bicycles go 80 to 120 km, and charge in four hours.",
    ),
    (
        &["rent", "hire", "borrow", "lend"],
        "A city bicycle is 15 euros a day or 60 a week, with helmet and lock.",
    ),
    (
        &["child", "kid", "daughter", "son", "school"],
        "For children we have wheels from 12 to 24 inches, and take them back as your child grows.",
    ),
    (
        &["pay", "card", "cash", "invoice", "instal"],
        "You may pay by card, in cash, or in twelve instalments without interest.",
    ),
    (
        &["price", "cost", "much", "expensive", "cheap"],
        "City bicycles start at 450 euros, and electric ones at 1,900.",
    ),
];

/// The facts that a question asks for.
pub(crate) fn facts(question: &str) -> Vec<&'static str> {
    let known = FACTS.iter().filter(|(words, _)| mentions(question, words));
    known.map(|(_, fact)| *fact).take(2).collect()
}

/// The answer, a word at a time.
pub(crate) fn complete(question: &str, facts: &[&str]) -> impl Stream<Item = String> + use<> {
    let answer = if !facts.is_empty() {
        facts.join(" ")
    } else if mentions(question, &["thank", "great", "bye"]) {
        "You are welcome. Enjoy the ride!".to_owned()
    } else if mentions(question, &["hello", "hi", "hey", "good"]) {
        "Hello! What would you like to know about our bicycles?".to_owned()
    } else {
        "I am afraid I do not know that. Ask me about opening hours, delivery, sizes, repairs, \
         rentals or electric bicycles."
            .to_owned()
    };
    let words: Vec<_> = answer.split_inclusive(' ').map(str::to_owned).collect();
    stream::iter(words).then(|word| async {
        sleep(Duration::from_millis(60)).await;
        word
    })
}

/// About four letters are a token.
pub(crate) fn tokens(text: &str) -> u64 {
    text.len().div_ceil(4) as u64
}

fn mentions(question: &str, words: &[&str]) -> bool {
    let question = question.to_lowercase();
    let mut asked = question.split(|it: char| !it.is_alphanumeric());
    asked.any(|asked| words.iter().any(|word| asked.starts_with(word)))
}
