//! Every model holds for the file as it is, and for no copy of it with a bug.
#![allow(
    clippy::duplicate_mod,
    clippy::unnecessary_wraps,
    dead_code,
    reason = "a model is compiled with every copy, and a bug may leave some of a copy without use"
)]

use scheduler_concurrency::{Model, hold};

macro_rules! subjects {
    ($($name:ident)*) => {$(
        mod $name {
            use super::Model;

            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));

            #[test]
            fn holds_in_every_interleaving() {
                super::holds(as_it_is::model::ALL);
            }

            #[test]
            fn is_seen_to_be_broken_when_it_is() {
                super::are_seen(BROKEN);
            }
        }
    )*};
}

subjects!(chores gather outbox queue);

fn holds(models: &[Model]) {
    assert!(!models.is_empty());
    for (number, model) in models.iter().enumerate() {
        assert_eq!(hold(*model), Ok(()), "model {number} of them");
    }
}

fn are_seen(broken: &[(&str, &[Model])]) {
    assert!(!broken.is_empty());
    let unseen: Vec<&str> = broken
        .iter()
        .filter(|(_, models)| models.iter().all(|model| hold(*model).is_ok()))
        .map(|(name, _)| *name)
        .collect();
    assert!(unseen.is_empty(), "no model sees {unseen:?}");
}
